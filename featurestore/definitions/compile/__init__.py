"""From a Feast registry's records to frozen specs, every mistake at once."""
