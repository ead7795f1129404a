"""The line that people see in place of records that are gone."""

from logengine.printable import escape
from logengine.reading import Gone

_WHAT = {
    "removed": "removed before they were read",
    "recorded": "gone, as the stream records",
    "missing": "missing, and nothing records why",
    "damaged": "damaged",
}


def gap_marker(stream: str, gone: Gone) -> str:
    """Returns the line, without a newline: safe to print, and unlike any record's."""
    count = gone.last - gone.first + 1
    which = (
        f"record {gone.first}" if count == 1 else f"{count:,} records, {gone.first} to {gone.last}"
    )
    why = "" if gone.why is None else f": {escape(gone.why)}"
    return f"--- {stream}: {which}: {_WHAT[gone.reason]}{why} ---"
