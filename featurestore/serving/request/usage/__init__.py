"""Who uses how much of a server: what is under way, what may be asked a second, and what was."""
