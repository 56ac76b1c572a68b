"""Clients of the packed API."""
