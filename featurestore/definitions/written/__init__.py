"""What an apply writes: compared with what is registered, and with whose it is."""
