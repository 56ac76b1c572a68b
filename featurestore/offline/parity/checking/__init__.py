"""Parity of some logged rows: what they hold, what each view says, what is computed on demand."""
