"""Feast's offline store interface on our history."""
