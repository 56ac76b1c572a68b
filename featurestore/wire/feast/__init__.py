"""Feast's messages and registry without importing Feast."""
