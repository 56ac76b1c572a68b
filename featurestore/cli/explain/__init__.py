"""`featurestore explain`: why features have the values that they have."""
