"""How bodies are laid out: the version that is written, and the one before it, which is still read."""
