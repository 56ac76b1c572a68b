"""What reads the online store: one round trip a request, rows of a view, status of the whole."""
