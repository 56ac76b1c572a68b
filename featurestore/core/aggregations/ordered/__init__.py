"""Aggregations that look at when events were: first and last, lists, times, gaps, decay."""
