"""The engine with one bug at a time, and the finders of each: `make mutants`."""
