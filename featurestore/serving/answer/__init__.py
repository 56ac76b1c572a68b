"""The lookup itself: entity keys in, a matrix of feature values out, whatever protocol asked."""
