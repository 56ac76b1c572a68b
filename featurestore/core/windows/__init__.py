"""Windows: where each kind begins and ends at a read time, by the clock or by the calendar of a time zone."""
