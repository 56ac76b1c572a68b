"""Tiles: the mergeable pieces of a view for spans of time, their merging and their growing old.

events ──lifting──> tiles ──ranges──> merged ranges (for lowering)
│  roll_up: old tiles become wider
parts: what a tile is made of
"""
