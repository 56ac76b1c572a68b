"""Commands on a feature repo."""
