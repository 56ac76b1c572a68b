"""The flow that keeps features fresh: payloads to columns, keyed batches, tiles in the online store."""
