"""Records of several streams in the order of their times.

Of the same time, those of the stream that is named first come first.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from logengine.format.block import Record
from logengine.format.segment import timestamp_of


def merge_by_time(streams: Iterable[Iterable[Record]]) -> Iterator[Record]:
    """Records of several streams, merged by time. Each stream stays in its own order."""
    return heapq.merge(*streams, key=_record_time)


def merge_back(streams: Sequence[Iterable[Record]]) -> Iterator[Record]:
    """Records of several streams, each the newest first: `merge_by_time` in reverse."""
    return heapq.merge(*streams[::-1], key=_record_time, reverse=True)


def last_merged(streams: Iterable[Iterable[Record]], count: int) -> list[Record]:
    """The last `count` records of several streams, merged by time."""
    merged = list(merge_by_time(streams))
    return merged[max(0, len(merged) - count) :]


def _record_time(record: Record) -> str:
    return timestamp_of(record.line)
