"""Reads the existing records of a data directory: by stream, range and filter."""

import contextlib
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from logengine.boot_time import booted_at
from logengine.errors import InvalidOption
from logengine.format.block import Block, Record
from logengine.format.cursor import Cursor
from logengine.format.segment import SEQ_MAX
from logengine.format.time_range import TimeRange, checked
from logengine.format.timestamp import format_moment, parse_time
from logengine.local_zone import local_now
from logengine.reading.batch import Batch, PendingGaps
from logengine.reading.context import with_context
from logengine.reading.filter import Filter, Patterns
from logengine.reading.listing import AnyPath, data_directory, stream_names
from logengine.reading.merging import last_merged, merge_back, merge_by_time
from logengine.reading.newest_records import last_records, records_back
from logengine.reading.problem import Problem, Report, raise_or_warn
from logengine.reading.reader import ALL_RECORDS, StreamReader

# Records merged by time are returned in batches of at most this many.
BATCH_RECORDS = 1024

Cursors = Cursor | str | Iterable[Cursor | str]
# What a range of times is compared with.
RangeBy = Literal["time", "arrival"]


def read(
    *streams: str,
    data: AnyPath | None = None,
    after: Cursors = (),
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    by: RangeBy = "time",
    last: int | None = None,
    where: Filter | str | Iterable[str] = (),
    grep: Patterns = None,
    fixed: bool = False,
    ignore_case: bool = False,
    invert: bool = False,
    on_problem: Report | None = None,
) -> "Reading":
    """The records of the named streams, or of all. Several streams are merged by time.

    `data`: the data directory; by default `$LOGENGINE_DATA`, else where this user's own daemon or
    the system's keeps it.
    `after`: one or more cursors, such as `"app:5120"`: only records of its stream after it. Without
    `streams`, only streams with a cursor are read.
    `since`, `until`: only records from this time on, and before this time: a `datetime` (one
    without a zone is local), or what the command line takes, such as `"10m"`.
    `by`: these are compared with a record's own `time`, or with `_ts` if that is not a known time;
    with `"arrival"`, always with `_ts`.
    `last`: only the last records, at most this many.
    `where`: an expression such as `"level >= warning and status == 500"`, or several that must all
    hold; `grep`: a regular expression that the stored line must match, or must not match with
    `invert`, or several, for all of which that is so. With `fixed` it is plain text; `ignore_case`
    ignores the case of ASCII letters only.
    `on_problem`: called with what is gone or cannot be read; reading continues after it. Without
    it, damage raises `IncompleteRead`, and what is expected to be gone warns with `RecordsGone`.

    Raises `InvalidStreamName`, `UnknownStream`, `InvalidCursor`, `InvalidFilter`, `InvalidOption`.
    """
    cursors = parse_cursors(after)
    directory = data_directory(data)
    names = stream_names(*(streams or cursors), data=directory)
    check_cursors(cursors, names)
    return Reading(
        directory,
        names,
        cursors,
        time_range(since, until, by),
        checked_last(last),
        Filter.of(where, grep, fixed=fixed, ignore_case=ignore_case, invert=invert),
        on_problem or raise_or_warn,
    )


class Reading:
    """Records to be read. Each pass begins at the start, and reads what exists then.

    Created by `read`. During a pass, the daemon may commit, merge and remove. Passes raise
    `OSError`, and what `on_problem` raises.
    """

    def __init__(
        self,
        data: Path,
        streams: Sequence[str],
        after: Mapping[str, int],
        times: TimeRange,
        last: int | None,
        chosen: Filter,
        on_problem: Report,
        *,
        passed: Mapping[str, int] | None = None,  # read after these, which nobody asked for
    ) -> None:
        self.data = data
        self.streams = tuple(streams)
        self._after = after
        self._passed = after if passed is None else passed
        self._times = times
        self._last = last
        self._chosen = chosen
        self._on_problem = on_problem

    def __iter__(self) -> Iterator[Record]:
        for batch in self.batches():
            yield from batch

    @property
    def chooses_all(self) -> bool:
        """Whether no filter is given: every record in the range is returned."""
        return self._chosen.chooses_all

    @property
    def by_arrival(self) -> bool:
        """Whether times are those of arrival, and not the records' own where these are known."""
        return self._times.by_arrival

    def batches(self) -> Iterator[Batch]:
        """The records in batches, for callers that want many at a time, as bytes."""
        return self._batches(self._on_problem)

    def backwards(self) -> Iterator[Batch]:
        """The records in batches, the newest first. No record says what is gone before it."""
        report = self._on_problem
        if self._last is not None:
            if last := self._last_records(self._last, report):
                yield Batch(last[::-1], {})
            return
        readers = [self._reader(stream, report) for stream in self.streams]
        merged = merge_back([self._records_back(reader) for reader in readers])
        while batch := list(islice(merged, BATCH_RECORDS)):
            yield Batch(batch, {})

    def with_context(
        self, before: int, after: int, *, limit: int | None = None
    ) -> Iterator[Batch | None]:
        """The records with up to so many records before and after each, whatever the filter.

        None stands between groups that are not adjacent. With `limit`, ends after the context of
        that many records.
        """
        report, begin = self._on_problem, None
        passed = self._after
        if self._last is not None:
            report = _each_once(report)
            last = self._last_records(self._last, report)
            if not last:
                return
            begin = last[0].cursor
            passed = {
                stream: max(
                    self._after.get(stream, 0), context_start(self.data, stream, last[0], before)
                )
                for stream in self.streams
            }
        every = Reading(
            self.data,
            self.streams,
            self._after,
            self._times,
            None,
            ALL_RECORDS,
            report,
            passed=passed,
        )
        yield from with_context(
            every.batches(), self._chosen, before, after, begin=begin, limit=limit
        )

    def blocks(self, streams: Iterable[str] | None = None) -> Iterator[Block]:
        """The records as they are stored, one stream after another, each in its own order.

        With `streams`, only those of these, which are some of the streams of this reading.

        For callers to whom the order between streams is nothing: streams are not merged, which
        takes most of the time of reading several.
        """
        if self._last is not None:
            for each in self._last_records(self._last, self._on_problem):
                yield Block(each.stream, each.seq, 1, each.line + b"\n")
            return
        for stream in self.streams if streams is None else streams:
            yield from self._blocks(self._reader(stream, self._on_problem))

    def with_problems(self) -> Iterator[Record | Problem]:
        """The records, and each problem before the records of its stream that come after it.

        Nothing is passed to `on_problem`.
        """
        problems: deque[Problem] = deque()
        for batch in self._batches(problems.append):
            while problems:
                yield problems.popleft()
            yield from batch
        yield from problems

    def _batches(self, on_problem: Report) -> Iterator[Batch]:
        gaps = PendingGaps()
        for chunk in self._chunks(gaps.noting(on_problem)):
            yield gaps.batch(chunk)

    def _chunks(self, report: Report) -> Iterator[Block | Sequence[Record]]:
        if self._last is not None:
            if last := self._last_records(self._last, report):
                yield last
            return
        readers = [self._reader(stream, report) for stream in self.streams]
        if len(readers) == 1:  # there is nothing to merge
            yield from self._blocks(readers[0])
            return
        merged = merge_by_time([self._records(reader) for reader in readers])
        while batch := list(islice(merged, BATCH_RECORDS)):
            yield batch

    def _last_records(self, count: int, report: Report) -> Sequence[Record]:
        readers = [self._reader(stream, report) for stream in self.streams]
        return last_merged([self._last_of(reader, count) for reader in readers], count)

    def _last_of(self, reader: StreamReader, count: int) -> Sequence[Record]:
        if self._after:
            return deque(self._records(reader), maxlen=count)
        with contextlib.suppress(FileNotFoundError):  # as in `_blocks`
            return last_records(reader, count, self._chosen, times=self._times)
        return []

    def _reader(self, stream: str, report: Report) -> StreamReader:
        return StreamReader(
            self.data,
            stream,
            report,
            self._passed.get(stream, 0) + 1,
            reports_removed=stream in self._after,
            literals=self._chosen.literals,
        )

    def _blocks(self, reader: StreamReader) -> Iterator[Block]:
        begin = reader.next_seq
        try:
            reader.seek_start_of(self._times)
            begin = reader.next_seq
            for block in reader.read(self._times):
                yield from self._chosen.choose(block)
        except FileNotFoundError:
            if reader.next_seq != begin:
                raise
            # Counts as empty: it is being recreated for the first record, or was removed.

    def _records_back(self, reader: StreamReader) -> Iterator[Record]:
        begin = reader.next_seq
        try:
            yield from records_back(reader, self._chosen, self._times)
        except FileNotFoundError:
            if reader.next_seq != begin:
                raise  # otherwise as in `_blocks`

    def _records(self, reader: StreamReader) -> Iterator[Record]:
        for block in self._blocks(reader):
            yield from block.records()


def parse_cursors(after: Cursors) -> dict[str, int]:
    """The cursors as a mapping from stream to number. Raises `InvalidCursor`."""
    given = [after] if isinstance(after, Cursor | str) else after
    cursors = (each if isinstance(each, Cursor) else Cursor.parse(each) for each in given)
    return {cursor.stream: cursor.seq for cursor in cursors}


def check_cursors(cursors: Mapping[str, int], streams: Container[str]) -> None:
    """Raises `InvalidOption` for a cursor of a stream that is not read."""
    if stray := [each for each in cursors if each not in streams]:
        raise InvalidOption(f"after names {', '.join(sorted(stray))}; add it to streams")


def checked_last(last: int | None) -> int | None:
    """The argument `last`, at most the largest number. Raises `InvalidOption` if negative."""
    if last is not None and last < 0:
        raise InvalidOption(f"last is {last}; expected a number of records, 0 or more")
    return None if last is None else min(last, SEQ_MAX)


def context_start(data: Path, stream: str, record: Record, before: int) -> int:
    """The number after which to read a stream to have so many records before `record`."""
    if stream == record.stream:
        start = record.seq
    else:
        reader = StreamReader(data, stream, ignore)
        with contextlib.suppress(FileNotFoundError):
            reader.seek_time(record.timestamp)
        start = reader.next_seq
    return max(0, start - before - 1)


def ignore(_problem: Problem) -> None:
    """Ignores problems of a reader that only looks for a place; reading reports them."""


def _each_once(report: Report) -> Report:
    """Returns a function that passes each problem to `report`, but none twice."""
    reported: set[str] = set()

    def report_new(problem: Problem) -> None:
        if str(problem) not in reported:
            reported.add(str(problem))
            report(problem)

    return report_new


def time_range(
    since: str | datetime | None, until: str | datetime | None, by: RangeBy
) -> TimeRange:
    """The range that the arguments `since`, `until` and `by` mean. Raises `InvalidOption`."""
    if by not in get_args(RangeBy):
        raise InvalidOption(f"by is {by!r}; expected 'time' or 'arrival'")
    given = _timestamp_in("since", since), _timestamp_in("until", until)
    return checked(TimeRange(*given, by_arrival=by == "arrival"))


def _timestamp_in(name: str, given: str | datetime | None) -> str | None:
    """The timestamp that the argument `name` means. Raises `InvalidOption`."""
    if given is None:
        return None
    try:
        if isinstance(given, datetime):
            return format_moment(given)
        return parse_time(given, local_now(), is_end=name == "until", booted=booted_at)
    except (ValueError, OverflowError) as error:
        raise InvalidOption(f"{name}: {error}") from None
