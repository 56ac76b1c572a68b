"""Scenarios of the calculator and of what it stores."""
