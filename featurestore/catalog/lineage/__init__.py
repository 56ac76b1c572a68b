"""What comes from what: topics, columns, features and services, as a graph, as a picture, and as events for others."""
