"""Payments in flight: events that a request brings along, one a row, and what a service has to know to take them."""
