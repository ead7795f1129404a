"""Records from a data directory, with a daemon or without: in order, as they come, filtered."""
