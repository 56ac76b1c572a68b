"""The catalog as pages: made on the server, readable without a script, from this process alone."""
