"""The flow that keeps every record: payloads to rows of the event log."""
