"""Reads some records before or after one, for programs that show records page by page.

The records of several streams are in the order of `merge_by_time`. Each stream is read on its own,
and closed again, so that a page of a thousand streams takes the memory of their records alone.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from logengine.format.block import Block, Record
from logengine.format.time_range import TimeRange
from logengine.format.timestamp import format_timestamp, parse_timestamp
from logengine.reading.filter import Filter
from logengine.reading.merging import last_merged, merge_by_time
from logengine.reading.newest_records import last_records
from logengine.reading.problem import Report
from logengine.reading.reader import StreamReader

_TICK_NS = 1000  # timestamps are exact to the microsecond


def records_before(
    data: Path, streams: Sequence[str], place: Record, count: int, chosen: Filter, report: Report
) -> list[Record]:
    """The last `count` chosen records before `place`, which is in one of `streams`.

    A stream that is not there is empty. Raises `OSError`, and what `report` and `chosen` raise.
    """
    found: list[list[Record]] = []
    for stream in streams:
        reader = _reader(data, stream, chosen, report)
        stop = place.seq if stream == place.stream else None
        times = TimeRange() if stop is not None else TimeRange(until=_bound(stream, place))
        try:
            found.append(last_records(reader, count, chosen, stop, times))
        except FileNotFoundError:
            continue
    return last_merged(found, count)


def records_after(
    data: Path, streams: Sequence[str], place: Record, count: int, chosen: Filter, report: Report
) -> list[Record]:
    """The first `count` chosen records after `place`; otherwise as `records_before`."""

    def from_place(stream: str, until: str | None) -> Iterator[Block]:
        if stream == place.stream:
            reader = _reader(data, stream, chosen, report, place.seq + 1)
            return reader.read(TimeRange(until=until))
        times = TimeRange(_bound(stream, place), until)
        return _from_time(_reader(data, stream, chosen, report), times)

    return _first_merged(streams, from_place, count, chosen)


def records_since(
    data: Path, streams: Sequence[str], since: str, count: int, chosen: Filter, report: Report
) -> list[Record]:
    """The first `count` chosen records from a timestamp on; otherwise as `records_before`."""

    def from_time(stream: str, until: str | None) -> Iterator[Block]:
        return _from_time(_reader(data, stream, chosen, report), TimeRange(since, until))

    return _first_merged(streams, from_time, count, chosen)


def blocks_after(data: Path, stream: str, seq: int, report: Report) -> Iterator[Block]:
    """The records of a stream after number `seq`, as they are stored.

    Raises `OSError`, `FileNotFoundError` if the stream is not there.
    """
    return StreamReader(data, stream, report, seq + 1).read()


def _first_merged(
    streams: Sequence[str],
    read: Callable[[str, str | None], Iterator[Block]],
    count: int,
    chosen: Filter,
) -> list[Record]:
    """The first chosen records of the streams; `read` takes a stream and an exclusive end."""
    merged: list[Record] = []
    for stream in streams:
        # What comes later than those already found is of no use.
        until = _next(merged[-1].timestamp) if len(merged) == count else None
        try:
            parts = (part for block in read(stream, until) for part in chosen.choose(block))
            records = list(islice((each for part in parts for each in part.records()), count))
        except FileNotFoundError:
            continue
        merged = list(islice(merge_by_time([merged, records]), count))
    return merged


def _reader(
    data: Path, stream: str, chosen: Filter, report: Report, next_seq: int = 1
) -> StreamReader:
    return StreamReader(data, stream, report, next_seq, literals=chosen.literals)


def _from_time(reader: StreamReader, times: TimeRange) -> Iterator[Block]:
    if times.since is not None:
        reader.seek_time(times.since)
    yield from reader.read(times)


def _bound(stream: str, place: Record) -> str:
    """The time from which on the records of another stream come after `place`.

    Of the same time, those of the stream that is named first come first.
    """
    return _next(place.timestamp) if stream < place.stream else place.timestamp


def _next(timestamp: str) -> str:
    return format_timestamp(parse_timestamp(timestamp) + _TICK_NS)
