"""Who did what, in files of which each line vouches for the one before it."""
