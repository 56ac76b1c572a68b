"""Answers: what the store holds of some entities becomes rows of features, for every way of asking.

plan (once) ──> reads ──> bytes of the store ──> assembly ──> matrices, statuses, event times
"""
