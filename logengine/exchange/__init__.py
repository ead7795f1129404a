"""Records for other programs, and theirs for us: import and export."""
