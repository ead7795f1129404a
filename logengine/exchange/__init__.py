"""Import and export: logs of other programs as records, and records as files for other programs.

    importing   text, NDJSON and journald's export format to NDJSON
    line_fields the fields of lines in common forms
    input       files, pipes and standard input in pieces, for asyncio
    exporting   records to NDJSON, CSV and Parquet files

The same input always becomes the same number of records, however it is cut into pieces, because
resuming depends on that. `importing` and `line_fields` do no I/O and read no clock; callers give
them the current time. Nothing here talks to the daemon. Parquet needs DuckDB, which is imported
only when it is used.
"""
