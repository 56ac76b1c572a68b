"""The online store: commit, read, generations; the Feast online store adapter."""
