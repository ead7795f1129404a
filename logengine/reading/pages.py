"""Records around a place, a page at a time and in both directions: for views that scroll.

    pages = Pages(["app", "web"], data=data, chosen=Filter.of("level >= error"))
    page = pages.before(pages.end(), limit)        the newest records
    page = pages.before(page.begin, limit)         those before them

A place is the number of the next record of each stream. Streams are merged by time. A page ends
when it is full, when there is no more, or when its time is over; it then says where to go on, so
that a filter that chooses few records of many never makes a view wait. Each page reads only the
frames that it needs.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from logengine.disk.segment_file import list_segments
from logengine.errors import DamagedSegment
from logengine.format.block import Block, Record
from logengine.format.cursor import Cursor
from logengine.format.segment import timestamp_of
from logengine.format.time_range import ALL_TIMES, TimeRange
from logengine.reading.filter import Filter
from logengine.reading.problem import Gone, Problem
from logengine.reading.reader import ALL_RECORDS, StreamReader
from logengine.reading.sealed_frames import Passes, SealedFrames

# A stream is read in spans of so many records. A span grows while it is read fast.
_SPAN_RECORDS_MIN = 256
_SPAN_RECORDS_MAX = 1 << 20
_SPAN_BYTES_FAST = 2 * 1024 * 1024
_SPAN_BYTES_SLOW = 8 * 1024 * 1024
# What is found in one stream and not on a page yet.
_FOUND_BYTES_MAX = 1024 * 1024
_AFTER_ALL_TIMES = "~"

Place = Mapping[str, int]
Item = Record | Problem


@dataclass(frozen=True)
class Limit:
    """What a page may take: so many records and bytes, of which one record may take more.

    `is_over` says whether its time is over. A page is read on nevertheless until it is further than
    the one before, so that whoever goes on always arrives. What it raises ends the reading.
    """

    records: int
    bytes: int
    is_over: Callable[[], bool]


@dataclass(frozen=True)
class Page:
    """Records and what is said of those that are gone, the oldest first.

    The page is from `begin` to `end`, which are the places to go on in either direction. `is_last`:
    there is nothing more in the direction in which it was read.
    """

    items: Sequence[Item]
    begin: Place
    end: Place
    is_last: bool


class Pages:
    """Pages of the records of some streams that are in `times` and that `chosen` selects.

    Methods raise `OSError` only if the data directory cannot be read. What cannot be read of a
    stream is a `Problem` on the page.
    """

    def __init__(
        self,
        streams: Sequence[str],
        *,
        data: Path,
        chosen: Filter = ALL_RECORDS,
        times: TimeRange = ALL_TIMES,
    ) -> None:
        self.streams = tuple(streams)
        self._data = data
        self._chosen = chosen
        self._times = times

    def start(self) -> Place:
        """The place before all records that there ever were."""
        return dict.fromkeys(self.streams, 1)

    def end(self) -> Place:
        """The place after all records."""
        return {stream: self._end_of(stream) for stream in self.streams}

    def at_time(self, time: str) -> Place:
        """The place before the first record of each stream that arrived at `time` or later."""
        return {stream: self._at_time(stream, time) for stream in self.streams}

    def at(self, cursor: Cursor) -> Place:
        """The place before the record with this stream and number, and its time in the others."""
        place = dict(self.start())
        time = self._time_of(cursor)
        for stream in self.streams:
            if stream != cursor.stream:
                place[stream] = (
                    self._end_of(stream) if time is None else self._at_time(stream, time)
                )
        place[cursor.stream] = max(1, cursor.seq)
        return place

    def after(self, place: Place, limit: Limit) -> Page:
        """The page that begins at `place`."""
        spans = [
            _SpansForward(self._span_reader(each), place.get(each, 1)) for each in self.streams
        ]
        items = _merged(spans, limit)
        end = {each.stream: each.place for each in spans}
        return Page(items, place, end, all(each.is_empty for each in spans))

    def before(self, place: Place, limit: Limit) -> Page:
        """The page that ends at `place`."""
        # Of records of the same time, those of the last stream are the newest.
        spans = [
            _SpansBack(self._span_reader(each), place.get(each, 1)) for each in self.streams[::-1]
        ]
        items = _merged(spans, limit)[::-1]
        begin = {each.stream: each.place for each in spans[::-1]}
        return Page(items, begin, place, all(each.is_empty for each in spans))

    def each_block_before(
        self,
        place: Place,
        add: Callable[[Block], None],
        is_over: Callable[[], bool],
        passes: Passes | None = None,
    ) -> tuple[Place, bool]:
        """Calls `add` with the records before `place`, those of the latest times first.

        If all records are chosen, `passes` is asked about each sealed frame: one that it passes is
        not read, and the records of another one are all in the next block, unless it is damaged.
        Returns up to which place that was done, and whether that was all.
        """
        passes = passes if self._chosen.chooses_all else None
        spans = [_SpansBack(self._span_reader(each), place.get(each, 1)) for each in self.streams]
        while reading := [each for each in spans if not each.is_ended]:
            newest = max(reading, key=lambda each: each.time)
            if is_over() and newest.has_read:
                break
            newest.read_blocks(add, passes)
        return {each.stream: each.place for each in spans}, not reading

    def _span_reader(self, stream: str) -> "_SpanReader":
        return _SpanReader(self._data, stream, self._chosen, self._times)

    def _end_of(self, stream: str) -> int:
        try:
            return _end(StreamReader(self._data, stream, _ignore), self._data / stream)
        except OSError:
            return 1

    def _at_time(self, stream: str, time: str) -> int:
        reader = StreamReader(self._data, stream, _ignore)
        size = _SPAN_RECORDS_MIN
        try:
            reader.seek_time(time)
            end = reader.end()
            while reader.next_seq < end:
                stop = min(reader.next_seq + size, end)
                with closing(reader.read(TimeRange(time), stop)) as blocks:
                    for block in blocks:
                        return block.first
                reader.next_seq = max(reader.next_seq, stop)
                size = min(2 * size, _SPAN_RECORDS_MAX)
        except OSError:
            return reader.next_seq
        return end

    def _time_of(self, cursor: Cursor) -> str | None:
        """When the record arrived; None if it cannot be read."""
        reader = StreamReader(self._data, cursor.stream, _ignore, cursor.seq)
        try:
            for block in reader.read(stop=cursor.seq + 1):
                return timestamp_of(block.body)
        except OSError:
            pass
        return None


class _SpanReader:
    """Reads the records of a stream between two numbers."""

    def __init__(self, data: Path, stream: str, chosen: Filter, times: TimeRange) -> None:
        self.stream = stream
        self.times = times
        self.directory = data / stream
        self.size = _SPAN_RECORDS_MIN
        self.next_seq = 1  # after a span was read
        self.first_time: str | None = None
        self.last_time: str | None = None
        self._data = data
        self._chosen = chosen

    def silent(self, start: int = 1) -> StreamReader:
        """A reader that reports nothing."""
        return StreamReader(self._data, self.stream, _ignore, start)

    def read(self, start: int, stop: int) -> Generator[Block | Problem, None, None]:
        """The chosen records, and each problem before the records after it. Raises `OSError`."""
        problems: deque[Problem] = deque()
        self.first_time = self.last_time = None
        size = 0
        reader = StreamReader(
            self._data,
            self.stream,
            problems.append,
            start,
            reports_removed=True,
            literals=self._chosen.literals,
        )
        is_damaged = False
        with closing(reader.read(self.times, stop)) as blocks:
            for block in blocks:
                while problems:
                    is_damaged = is_damaged or problems[0].gone is None
                    yield problems.popleft()
                size += len(block.body)
                self.first_time = self.first_time or timestamp_of(block.body)
                self.last_time = block.last_timestamp()
                yield from self._chosen.choose(block)
        is_damaged = is_damaged or any(each.gone is None for each in problems)
        yield from problems
        if reader.next_seq < stop:
            # Nothing has them, although there are records after them.
            gone = Gone(reader.next_seq, stop - 1, "damaged" if is_damaged else "missing")
            what = f"records {gone.first} to {gone.last} are {gone.reason}"
            yield Problem(self.stream, what, gone=gone)
        self.next_seq = max(reader.next_seq, stop)
        if size < _SPAN_BYTES_FAST:
            self.size = min(_SPAN_RECORDS_MAX, 2 * self.size)
        elif size > _SPAN_BYTES_SLOW:
            self.size = max(1, self.size // 2)


@dataclass(frozen=True)
class _Found:
    """An item, the number of its first record, and when that arrived, if it is known."""

    item: Item
    seq: int
    time: str | None

    @property
    def size(self) -> int:
        return len(self.item.line) if isinstance(self.item, Record) else 0


class _Spans:
    """What is found in a stream, span by span in one direction, and not taken yet."""

    def __init__(self, reader: _SpanReader, place: int, time: str) -> None:
        self._reader = reader
        self.stream = reader.stream
        self.is_ended = False
        self.has_read = False
        self.time = time  # of what was taken or read last
        self._found: deque[_Found] = deque()
        self._next = place

    @property
    def is_empty(self) -> bool:
        """Whether nothing more can be taken."""
        return self.is_ended and not self._found

    @property
    def place(self) -> int:
        """Where to go on after what was taken."""
        raise NotImplementedError

    @property
    def order(self) -> str:
        """The time of what is taken next; before that is read, one that it cannot come before."""
        # What is gone has no time: it stays with the record after it.
        return next((each.time for each in self._following if each.time), self.time)

    def take(self) -> _Found:
        """Takes what is next."""
        found = self._pop()
        self.time = found.time or self.time
        return found

    @property
    def must_read(self) -> bool:
        """Whether it is to be read before it is known what is next."""
        return not self._found and not self.is_ended

    def read(self) -> None:
        """Reads a span, or finds out that there is none."""
        self.has_read = True
        try:
            self._read()
        except FileNotFoundError:
            self.is_ended = True
        except (OSError, DamagedSegment) as error:
            self.is_ended = True
            what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            self._found.append(_Found(Problem(self.stream, what), self._next, None))

    def _read(self) -> None:
        raise NotImplementedError

    @property
    def _following(self) -> Iterator[_Found]:
        raise NotImplementedError

    def _pop(self) -> _Found:
        raise NotImplementedError

    def _items(self, start: int) -> Iterator[_Found]:
        """What is from `start` to `_stop_of_span`, in order."""
        following = start
        with closing(self._reader.read(start, self._stop_of_span(start))) as parts:
            for part in parts:
                if isinstance(part, Problem):
                    seq = following if part.gone is None else part.gone.first
                    yield _Found(part, seq, None)
                    continue
                following = part.first + part.count
                for record in part.records():
                    yield _Found(record, record.seq, record.timestamp)

    def _stop_of_span(self, start: int) -> int:
        raise NotImplementedError


class _SpansForward(_Spans):
    def __init__(self, reader: _SpanReader, place: int) -> None:
        super().__init__(reader, place, "")
        self._stop: int | None = None

    @property
    def place(self) -> int:
        return self._found[0].seq if self._found else self._next

    @property
    def _following(self) -> Iterator[_Found]:
        return iter(self._found)

    def _pop(self) -> _Found:
        return self._found.popleft()

    def _read(self) -> None:
        if self._stop is None:
            self._stop = self._first_span()
        size = 0
        if self._next < self._stop:
            for each in self._items(self._next):
                self._found.append(each)
                size += each.size
                if size > _FOUND_BYTES_MAX:
                    self._next = each.seq + 1
                    return
            self._next = self._reader.next_seq
            self.time = self._reader.last_time or self.time
        self.is_ended = self._next >= self._stop

    def _stop_of_span(self, start: int) -> int:
        assert self._stop is not None
        return min(start + self._reader.size, self._stop)

    def _first_span(self) -> int:
        times = self._reader.times
        reader = self._reader.silent(self._next)
        reader.seek_start_of(times)
        self._next = reader.next_seq
        stop = reader.end_of(times)
        return _end(reader, self._reader.directory) if stop is None else stop


class _SpansBack(_Spans):
    def __init__(self, reader: _SpanReader, place: int) -> None:
        super().__init__(reader, place, _AFTER_ALL_TIMES)
        self._oldest: int | None = None
        self._frames = SealedFrames(reader.directory)

    @property
    def place(self) -> int:
        if not self._found:
            return self._next
        last = self._found[-1]
        if isinstance(last.item, Record):
            return last.seq + 1
        return last.seq if last.item.gone is None else last.item.gone.last + 1

    @property
    def _following(self) -> Iterator[_Found]:
        return reversed(self._found)

    def _pop(self) -> _Found:
        return self._found.pop()

    def read_blocks(self, add: Callable[[Block], None], passes: Passes | None) -> None:
        """Reads a span, and passes what it has on; not frames that `passes` does not need."""
        self.has_read = True
        try:
            start = self._start()
            if passes is not None:
                start = self._start_after_frames(start, passes)
            if start < self._next:
                for part in self._reader.read(start, self._next):
                    if isinstance(part, Block):
                        add(part)
                self.time = self._reader.first_time or self.time
            self._next = start
            self.is_ended = start <= (self._oldest or 1)
        except OSError:
            self.is_ended = True

    def _start_after_frames(self, start: int, passes: Passes) -> int:
        """Goes over the frames of a segment that are passed. Returns where the next span begins.

        That is at `start`, or where a frame begins that is to be read.
        """
        segment = None
        while (
            start < self._next
            and (frame := self._frames.with_record(self._next - 1)) is not None
            and segment in (None, frame.segment)
        ):
            segment = frame.segment
            begin = max(frame.first, self._oldest or 1)
            is_whole = (begin, self._next) == (frame.first, frame.last + 1)
            is_in_range = self._reader.times.holds_all(frame)
            if not (is_whole and is_in_range and passes(frame)):
                return begin
            self._next = begin
            self.time = frame.since
            start = self._start()
        return start if segment is None else self._next

    def _start(self) -> int:
        if self._oldest is None:
            self._oldest = self._first_span()
        return max(self._oldest, self._next - self._reader.size)

    def _read(self) -> None:
        start = self._start()
        if start < self._next:
            is_cut = self._read_span(start)
            self.time = self._reader.first_time or self.time
            first = self._found[0].seq if self._found else start
            self._next = first if is_cut else min(start, first)
        assert self._oldest is not None
        self.is_ended = self._next <= self._oldest
        if self.is_ended and self._oldest > 1 and self._reader.times.since is None:
            gone = Gone(1, self._oldest - 1, "removed")
            what = f"records 1 to {gone.last} are no longer kept"
            problem = Problem(self.stream, what, expected=True, gone=gone)
            self._found.appendleft(_Found(problem, 1, None))

    def _read_span(self, start: int) -> bool:
        """Reads a span; returns whether only its end is kept."""
        size, is_cut = 0, False
        for each in self._items(start):
            self._found.append(each)
            size += each.size
            while size > _FOUND_BYTES_MAX and len(self._found) > 1:
                size -= self._found.popleft().size
                is_cut = True
        return is_cut

    def _stop_of_span(self, start: int) -> int:
        return self._next

    def _first_span(self) -> int:
        """Moves to the end of the times; returns where they begin, or the stream does."""
        times = self._reader.times
        oldest = next(iter(list_segments(self._reader.directory)), 1)
        reader = self._reader.silent()
        if (stop := reader.end_of(times)) is not None:
            self._next = min(self._next, stop)
        self._next = min(self._next, _end(reader, self._reader.directory))
        reader.seek_start_of(times)
        return max(oldest, reader.next_seq)


def _merged(spans: Sequence[_SpansForward] | Sequence[_SpansBack], limit: Limit) -> list[Item]:
    """Takes items in the order of their times, as many as are on a page."""
    is_back = any(isinstance(each, _SpansBack) for each in spans)
    items: list[Item] = []
    told: set[str] = set()
    size = 0
    while len(items) < limit.records and size < limit.bytes:
        rest = [each for each in spans if not each.is_empty]
        if not rest:
            break
        following = (max if is_back else min)(rest, key=_order)
        if following.must_read:
            if limit.is_over() and following.has_read:
                break
            following.read()
            continue
        found = following.take()
        size += found.size
        item = found.item
        if isinstance(item, Problem):
            if items and (hole := _joined(*((item, items[-1]) if is_back else (items[-1], item)))):
                items[-1] = hole
                continue
            if str(item) in told:  # by an earlier span
                continue
            told.add(str(item))
        items.append(item)
    return items


def _order(spans: _Spans) -> str:
    return spans.order


def _end(reader: StreamReader, directory: Path) -> int:
    """The number after the last record's. A last segment without a readable header has one."""
    newest = list_segments(directory)[-1:]
    return max([reader.end(), *(first + 1 for first in newest)])


def _joined(earlier: Item, later: Item) -> Problem | None:
    """Two adjacent holes as one; None if they are not the same kind of hole."""
    if not (isinstance(earlier, Problem) and isinstance(later, Problem)):
        return None
    first, second = earlier.gone, later.gone
    if first is None or second is None or earlier.stream != later.stream:
        return None
    if first.last + 1 != second.first or (first.reason, first.why) != (second.reason, second.why):
        return None
    gone = Gone(first.first, second.last, first.reason, first.why)
    what = f"records {gone.first} to {gone.last} are {gone.reason}"
    return Problem(earlier.stream, what, earlier.expected, gone)


def _ignore(_problem: Problem) -> None:
    """Ignores problems of a reader that only looks for a place; pages have them."""
