"""Records from a data directory: in order, as they arrive, filtered. No daemon is needed.

    read("app", since="10m")        the existing records: a `Reading`
    follow("app", last=10)          new records, once they are durable: a `Following`
    streams()                       the streams, with their sizes and times
    Pages(streams, data=data)       records in both directions from a place, for views that scroll

Other rooms, mainly the command line, use only the names exported here; programs import the same
names from `logengine`. `docs/reading.md` is their documentation.

What cannot be read is never skipped silently: each hole and each damaged file is a `Problem`,
passed to `on_problem`. Every returned record was read whole and matched its hash.

Inside, `reader` reads one stream forward, `read_ahead` in threads; `follower` waits for more;
`filter` selects from whole blocks; `batch` encodes the selection as bytes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logengine.reading.adjacent import (
        blocks_after,
        records_after,
        records_before,
        records_since,
    )
    from logengine.reading.batch import Batch
    from logengine.reading.filter import Filter
    from logengine.reading.follow_records import Following, follow
    from logengine.reading.listing import (
        ChosenStreams,
        check_data_directory,
        check_stream_names,
        stream_names,
        unmatched,
    )
    from logengine.reading.pages import Limit, Page, Pages
    from logengine.reading.problem import Gone, IncompleteRead, Problem, RecordsGone, Report
    from logengine.reading.read_records import RangeBy, Reading, read
    from logengine.reading.sealed_frames import SealedFrame
    from logengine.reading.stream_summary import (
        StreamSummary,
        newest_seq,
        streams,
        summary_of,
    )

__all__ = [
    "Batch",
    "ChosenStreams",
    "Filter",
    "Following",
    "Gone",
    "IncompleteRead",
    "Limit",
    "Page",
    "Pages",
    "Problem",
    "RangeBy",
    "Reading",
    "RecordsGone",
    "Report",
    "SealedFrame",
    "StreamSummary",
    "blocks_after",
    "check_data_directory",
    "check_stream_names",
    "follow",
    "newest_seq",
    "read",
    "records_after",
    "records_before",
    "records_since",
    "stream_names",
    "streams",
    "summary_of",
    "unmatched",
]

# Loaded on first use: a command that lists streams starts faster without the rest.
_MODULES = {
    "Batch": "logengine.reading.batch",
    "ChosenStreams": "logengine.reading.listing",
    "Filter": "logengine.reading.filter",
    "Following": "logengine.reading.follow_records",
    "Gone": "logengine.reading.problem",
    "IncompleteRead": "logengine.reading.problem",
    "Limit": "logengine.reading.pages",
    "Page": "logengine.reading.pages",
    "Pages": "logengine.reading.pages",
    "Problem": "logengine.reading.problem",
    "RangeBy": "logengine.reading.read_records",
    "Reading": "logengine.reading.read_records",
    "RecordsGone": "logengine.reading.problem",
    "Report": "logengine.reading.problem",
    "SealedFrame": "logengine.reading.sealed_frames",
    "StreamSummary": "logengine.reading.stream_summary",
    "blocks_after": "logengine.reading.adjacent",
    "check_data_directory": "logengine.reading.listing",
    "check_stream_names": "logengine.reading.listing",
    "follow": "logengine.reading.follow_records",
    "newest_seq": "logengine.reading.stream_summary",
    "read": "logengine.reading.read_records",
    "records_after": "logengine.reading.adjacent",
    "records_before": "logengine.reading.adjacent",
    "records_since": "logengine.reading.adjacent",
    "stream_names": "logengine.reading.listing",
    "streams": "logengine.reading.stream_summary",
    "summary_of": "logengine.reading.stream_summary",
    "unmatched": "logengine.reading.listing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
