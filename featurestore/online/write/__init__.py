"""What writes to the online store: commits, compaction, event ids, plain rows, bootstrap."""
