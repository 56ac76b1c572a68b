"""`featurestore demo`: the whole loop in two minutes."""
