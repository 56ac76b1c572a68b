"""Scenarios of events on their way from payloads to features."""
