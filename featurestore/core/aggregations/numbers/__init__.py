"""Aggregations of numbers whose order does not matter: counts, sums, extremes, moments."""
