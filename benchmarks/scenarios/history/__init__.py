"""Scenarios of training sets and of the log that they are made from."""
