"""Feast's interfaces on the online store."""
