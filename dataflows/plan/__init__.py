"""What a flow writes and from where."""
