"""The stream that passes feature vectors on, as they change."""
