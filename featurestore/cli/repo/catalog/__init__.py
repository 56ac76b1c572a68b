"""Look around in what is registered."""
