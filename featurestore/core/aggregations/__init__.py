"""Aggregations, one a file; `catalog` lists them."""
