"""What feature values look like: statistics of what was served and of training sets, and how far they have drifted."""
