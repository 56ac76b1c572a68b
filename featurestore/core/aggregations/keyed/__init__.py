"""Aggregations with a state for each distinct key: exact and approximate counts, top lists, maps."""
