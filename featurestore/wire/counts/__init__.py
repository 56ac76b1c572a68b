"""What streams count for everybody and keep in the store, hour by hour."""
