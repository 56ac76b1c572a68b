"""Point-in-time values: all features of a view at many (entity, moment) pairs at once, from sorted events."""
