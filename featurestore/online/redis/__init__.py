"""Redis, Valkey and clusters of them: the one vendor behind `online/store.py`."""
