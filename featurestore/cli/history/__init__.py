"""Commands that recompute from history."""
