"""Commands that run, start or feed the long-running parts."""
