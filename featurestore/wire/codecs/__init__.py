"""The bytes of the online store: bodies, heads, plain rows, and view definitions as canonical JSON."""
