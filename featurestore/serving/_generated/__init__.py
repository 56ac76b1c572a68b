"""Compiled from proto/featurestore/v1 by `python proto/compile_lookup.py`; do not edit."""
