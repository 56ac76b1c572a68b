"""What can be served now: registry and generations, watched."""
