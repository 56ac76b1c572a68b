"""Lowering: from merged tiles to the values of features."""
