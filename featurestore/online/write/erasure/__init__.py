"""What was erased: the records, and what deletes it from lanes."""
