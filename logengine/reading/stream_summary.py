"""Summarizes streams: how many records and bytes, from when to when."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import UNSET

from logengine.disk.segment_file import (
    list_segments,
    list_streams,
    read_header,
    sizes_of_segments,
)
from logengine.errors import DamagedSegment
from logengine.format.segment import Header
from logengine.reading.listing import AnyPath, data_directory, stream_names
from logengine.reading.problem import Report, raise_or_warn

# A segment that records that records are gone has only a header.
_GAP_BYTES_MAX = 256 * 1024


class StreamSummary(msgspec.Struct, frozen=True):
    """The contents of a stream, by its file names and headers.

    `records` counts from the first record that is kept to the last, without those that the stream
    records as gone, as after a repair. `bytes` is the size of its files. `since` and `until` are
    the timestamps of its first and of its last records, in UTC. Numbers and times are None for a
    stream without records. `damaged` counts segments at the two ends whose header cannot be read:
    they are not in the other figures.
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
    """The named streams, or all existing ones, by name. Reads a header at each end of each.

    Also reads those of its small segments, which may record that records are gone.

    `data` is the data directory; by default `$LOGENGINE_DATA`, else where this user's own daemon
    or the system's keeps it. Raises `InvalidStreamName`, `UnknownStream` and `OSError`.
    """
    directory = data_directory(data)
    return [summary_of(name, data=directory) for name in stream_names(*names, data=directory)]


def newest_seq(
    stream: str, *, data: AnyPath | None = None, on_problem: Report | None = None
) -> int:
    """The number of the last record that a stream ever had; 0 if there is none.

    Records that the stream itself records as gone count. Raises `OSError`.
    """
    from logengine.reading.reader import StreamReader  # a list of streams does not need it

    directory = data_directory(data)
    if stream not in list_streams(directory):
        return 0
    return StreamReader(directory, stream, on_problem or raise_or_warn).end() - 1


def summary_of(stream: str, *, data: Path) -> StreamSummary:
    """The summary of one stream, from the names and the headers at its two ends.

    A directory that does not exist counts as empty: it is being recreated for the first record, or
    was removed. Raises `OSError`.
    """
    directory = data / stream
    gone: set[int] = set()
    while True:
        try:
            firsts = list_segments(directory)
            sizes = sizes_of_segments(directory)
            damaged: set[int] = set()
            ends = [_end(directory, order, damaged, gone) for order in (firsts, firsts[::-1])]
            missing = _gone_between(directory, ends, sizes)
        except _Vanished:
            continue  # terminates: each segment may vanish only once
        except FileNotFoundError:
            firsts, sizes, damaged, ends, missing = [], {}, set(), [], 0
        break
    headers = [header for header in ends if header is not None]
    oldest, newest = (headers[0], headers[-1]) if headers else (None, None)
    return StreamSummary(
        stream=stream,
        records=newest.last - oldest.first + 1 - missing if oldest and newest else 0,
        bytes=sum(sizes.values()),
        segments=len(firsts),
        first_seq=oldest.first if oldest else None,
        last_seq=newest.last if newest else None,
        since=oldest.since if oldest else None,
        until=newest.latest if newest else None,
        damaged=len(damaged),
    )


def _gone_between(directory: Path, ends: Sequence[Header | None], sizes: Mapping[int, int]) -> int:
    """How many records between its two ends the stream records as gone."""
    if None in ends:
        return 0
    oldest, newest = (header.first for header in ends if header is not None)
    count = 0
    for first, size in sizes.items():
        if not (oldest < first < newest and size <= _GAP_BYTES_MAX):
            continue
        try:
            header = read_header(directory, first)
        except (DamagedSegment, OSError):
            continue  # damaged, or merged since it was listed: no gap, which is never merged
        if header.gap is not UNSET:
            count += header.gap.last - header.first + 1
    return count


class _Vanished(Exception):
    """A segment no longer exists: it was merged, or removed, since it was listed."""


def _end(
    directory: Path, firsts: Sequence[int], damaged: set[int], gone: set[int]
) -> Header | None:
    """The header of the first segment with records; adds unreadable ones before it to `damaged`.

    Raises `_Vanished` for one that no longer exists, after adding it to `gone`.
    """
    for first in firsts:
        try:
            header = read_header(directory, first)
        except FileNotFoundError:
            # Names are never reused: one that is listed again was not merged away.
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
