"""A sample of the answers, on its way into the feature log."""
