"""The scenarios, one a file, in rooms of what they are about."""
