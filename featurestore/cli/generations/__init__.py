"""Commands on what the online store holds of a view."""
