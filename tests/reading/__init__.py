"""The reading API: what a notebook, a test or the command line reads with."""
