"""Compiled from proto/featurestore_api/v1 by `python proto/compile_lookup.py`; do not edit."""
