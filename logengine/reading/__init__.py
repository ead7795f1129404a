"""Records from a data directory: in order, as they come, filtered. No daemon is needed.

    read("app", since="10m")        the records there are: a `Reading`
    follow("app", last=10)          what is added to them, once it is durable: a `Following`
    streams()                       the streams, with their sizes and times

What is imported from here is all that other rooms, the command line first, use of this one; a
program takes the same names from `logengine`. `docs/reading.md` is written for it.

What cannot be read is never passed over in silence: each hole and each damaged file is a `Problem`,
handed to `on_problem`. What is handed out was read whole, and matched its hash.

Inside, `reader` reads one stream forward, `read_ahead` in threads; `follower` waits for more;
`filter` chooses from whole blocks; `batch` makes bytes of what was chosen.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logengine.reading.batch import Batch
    from logengine.reading.filter import Filter
    from logengine.reading.follow_records import Following, follow
    from logengine.reading.listing import check_stream_names, stream_names
    from logengine.reading.problem import Gone, IncompleteRead, Problem, RecordsGone, Report
    from logengine.reading.read_records import Reading, read
    from logengine.reading.stream_summary import StreamSummary, newest_seq, streams

__all__ = [
    "Batch",
    "Filter",
    "Following",
    "Gone",
    "IncompleteRead",
    "Problem",
    "Reading",
    "RecordsGone",
    "Report",
    "StreamSummary",
    "check_stream_names",
    "follow",
    "newest_seq",
    "read",
    "stream_names",
    "streams",
]

# Loaded when used: a command that lists streams starts faster without the rest.
_MODULES = {
    "Batch": "logengine.reading.batch",
    "Filter": "logengine.reading.filter",
    "Following": "logengine.reading.follow_records",
    "Gone": "logengine.reading.problem",
    "IncompleteRead": "logengine.reading.problem",
    "Problem": "logengine.reading.problem",
    "Reading": "logengine.reading.read_records",
    "RecordsGone": "logengine.reading.problem",
    "Report": "logengine.reading.problem",
    "StreamSummary": "logengine.reading.stream_summary",
    "check_stream_names": "logengine.reading.listing",
    "follow": "logengine.reading.follow_records",
    "newest_seq": "logengine.reading.stream_summary",
    "read": "logengine.reading.read_records",
    "stream_names": "logengine.reading.listing",
    "streams": "logengine.reading.stream_summary",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
