"""History: the event log, and what is computed from it."""
