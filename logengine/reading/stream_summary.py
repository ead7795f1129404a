"""What a stream has: how many records, of how many bytes, from when to when."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import UNSET

from logengine.disk.segment_file import (
    list_segments,
    list_streams,
    read_header,
    size_of_segments,
)
from logengine.errors import DamagedSegment
from logengine.format.segment import Header
from logengine.reading.listing import AnyPath, data_directory, stream_names
from logengine.reading.problem import Report, raise_or_warn


class StreamSummary(msgspec.Struct, frozen=True):
    """What there is of a stream, by its names and its headers.

    `records` counts from the first record that is kept to the last. `bytes` are those of its files.
    `since` and `until` are the timestamps of its first and of its last records, in UTC. Numbers and
    times are None for a stream without records. `damaged` counts segments at the two ends whose
    header cannot be read: they are not in the other figures.
    """

    stream: str
    records: int
    bytes: int
    segments: int
    first_seq: int | None
    last_seq: int | None
    since: str | None
    until: str | None
    damaged: int


def streams(*names: str, data: AnyPath | None = None) -> list[StreamSummary]:
    """The streams named, or all there are, by name. Reads a header at each end of each.

    `data` is the data directory; by default `$LOGENGINE_DATA`, else where this user's own daemon
    or the system's keeps it. Raises `InvalidStreamName`, `UnknownStream` and `OSError`.
    """
    directory = data_directory(data)
    return [_summarize(directory / name, name) for name in stream_names(*names, data=directory)]


def newest_seq(
    stream: str, *, data: AnyPath | None = None, on_problem: Report | None = None
) -> int:
    """The number of the last record that a stream ever had; 0 if there is none.

    Records that the stream itself says are gone count. Raises `OSError`.
    """
    from logengine.reading.reader import StreamReader  # much that a list of streams does not need

    directory = data_directory(data)
    if stream not in list_streams(directory):
        return 0
    return StreamReader(directory, stream, on_problem or raise_or_warn).end() - 1


def _summarize(directory: Path, stream: str) -> StreamSummary:
    """The summary of a stream, from the names and the headers at its two ends.

    A directory that is not there any more counts as empty: it is being made again for the first
    record, or was removed.
    """
    gone: set[int] = set()
    while True:
        try:
            firsts = list_segments(directory)
            size = size_of_segments(directory)
            damaged: set[int] = set()
            ends = [_end(directory, order, damaged, gone) for order in (firsts, firsts[::-1])]
        except _Vanished:
            continue  # ends: each segment may vanish only once
        except FileNotFoundError:
            firsts, size, damaged, ends = [], 0, set(), []
        break
    headers = [header for header in ends if header is not None]
    oldest, newest = (headers[0], headers[-1]) if headers else (None, None)
    return StreamSummary(
        stream=stream,
        records=newest.last - oldest.first + 1 if oldest and newest else 0,
        bytes=size,
        segments=len(firsts),
        first_seq=oldest.first if oldest else None,
        last_seq=newest.last if newest else None,
        since=oldest.since if oldest else None,
        until=newest.latest if newest else None,
        damaged=len(damaged),
    )


class _Vanished(Exception):
    """A segment is not there any more: it was merged, or removed, since it was listed."""


def _end(
    directory: Path, firsts: Sequence[int], damaged: set[int], gone: set[int]
) -> Header | None:
    """The header of the first of some segments that has records; those before it are `damaged`.

    Raises `_Vanished` for one that is not there any more; it is among the `gone` then.
    """
    for first in firsts:
        try:
            header = read_header(directory, first)
        except FileNotFoundError:
            # Names are never used again: what is listed once more is no merged segment.
            if first not in gone:
                gone.add(first)
                raise _Vanished from None
            damaged.add(first)
        except (DamagedSegment, OSError):
            damaged.add(first)
        else:
            if header.gap is UNSET:  # a recorded gap at an end has no records to count
                return header
    return None
