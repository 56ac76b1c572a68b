"""What is right, and whether the answers are."""
