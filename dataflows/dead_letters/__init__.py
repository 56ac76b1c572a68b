"""Records that could not be used: written, found again, and given to the stream once more."""
