"""The calculator: values in, values out. No clock, no I/O, no vendor but numpy."""
