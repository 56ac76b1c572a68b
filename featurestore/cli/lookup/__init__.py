"""The command that looks features up."""
