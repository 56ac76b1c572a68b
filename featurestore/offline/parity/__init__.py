"""Parity: what was served, logged and recomputed."""
