"""Who owns what, what it is for, and what all teams keep to."""
