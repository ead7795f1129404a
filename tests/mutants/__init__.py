"""The engine with one thing done wrong at a time, and who is to find it: `make mutants`."""
