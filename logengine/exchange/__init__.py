"""Import and export: logs of other programs as records, and records as files for them."""
