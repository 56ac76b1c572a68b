"""Scenarios of the server that answers lookups."""
