"""Reads records from segment files, by cursor or by time. It needs no daemon.

The daemon may commit and merge meanwhile. A listed segment may be gone when it is opened: its
records are then in a segment before it. Or it may contain more than its header said a moment ago. A
reader that finds a file gone lists the directory again, as often as necessary, because the stream
has changed each time. Every returned record was read whole and matched a hash: that of its segment
or, if the segment is damaged, that of its frame.
"""

import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET

from logengine.disk.search_filters import FrameSearch, FrameTimes
from logengine.disk.segment_file import (
    DamagedRecords,
    MayMatch,
    Parts,
    list_segments,
    read_wanted,
    read_wanted_plain,
)
from logengine.errors import DamagedSegment
from logengine.format.block import Block
from logengine.format.cover import COVER_SEGMENTS_MAX
from logengine.format.search_filter import Literals, Search
from logengine.format.segment import (
    Gap,
    Header,
    describe_gap,
    segment_name,
)
from logengine.format.time_range import ALL_TIMES, TimeRange, wanted_frames
from logengine.reading.filter import Filter
from logengine.reading.problem import Gone, Problem, Reason, Report
from logengine.reading.read_ahead import ReadAhead

# A stream that is read from its end is read in spans of at most this many segments.
_SPAN_SEGMENTS_MAX = 8
# A reader lists a directory this often without a pause. If it still makes no progress, it pauses
# before each further listing, and longer each time.
_LOOKS_AT_ONCE = 3
_PAUSE_S_MIN = 0.001
_PAUSE_S_MAX = 0.05

Result = TypeVar("Result")


Segment = tuple[Header, Parts]

ALL_RECORDS = Filter()


class _ListingOutdated(Exception):
    """The directory has changed since it was listed: by a merge, a commit or a removal."""


class StreamReader:
    """Reads one stream forward. `next_seq` is where it continues.

    With `reports_removed`, everything from there on is wanted, and records that no longer exist are
    reported. Without it, that starts with the first record that is returned. Records without the
    `literals` need not be returned: frames of sealed segments without them are not read.
    """

    def __init__(
        self,
        data: Path,
        stream: str,
        report: Report,
        next_seq: int = 1,
        *,
        reports_removed: bool = False,
        literals: Literals = (),
    ) -> None:
        self.stream = stream
        self.next_seq = next_seq
        self.reports_removed = reports_removed
        self._removed: Gone | None = None  # skipped, and not reported yet
        self._directory = data / stream
        self._report = report
        self._reported: set[str] = set()
        self._vanished: set[int] = set()
        self._suspected: tuple[int, int] | None = None
        # Messages from the threads that read ahead, to be reported by the caller's.
        self._messages: deque[str] = deque()
        search = Search(literals)
        self._frames: FrameSearch | None = None
        self._frame_times: FrameTimes | None = None
        if search.can_skip:
            self._frames = FrameSearch(data, stream, search, self._messages.append)

    @property
    def first_unreported(self) -> int:
        """The first number that was neither returned nor reported.

        That is `next_seq`, except after removed records that were skipped and not reported yet.
        """
        return self.next_seq if self._removed is None else self._removed.first

    def read(
        self, times: TimeRange = ALL_TIMES, stop: int | None = None
    ) -> Generator[Block, None, None]:
        """The records from `next_seq` on. May be called again when there are more.

        With `stop`, only those before that number. Raises `OSError`, `FileNotFoundError`
        if the stream does not exist.
        """
        if stop is None:
            stop = self.end_of(times)
        looks = 0
        while True:
            before = self.next_seq
            try:
                yield from self._read_listed(list_segments(self._directory), times, stop)
            except _ListingOutdated:
                looks = looks + 1 if self.next_seq == before else 0
                _pause_after(looks)
            else:
                break
        self._report_removed()

    def read_changed(self, first: int, stop: int | None = None) -> Iterator[Block]:
        """Like `read`, when segment `first` is known to have changed.

        Lists the directory only if that segment is not enough, so the cost of following does not
        grow with the number of segments.
        """
        if first <= self.next_seq:
            # It was not listed. If it is gone, that says nothing about the next listing.
            self._vanished.discard(first)
            try:
                yield from self._read_listed([first], ALL_TIMES, stop)
            except _ListingOutdated:
                self._vanished.discard(first)
            else:
                return
        yield from self.read(stop=stop)

    def seek_start_of(self, times: TimeRange) -> None:
        """Moves forward, but past no record in `times`. Raises `OSError`."""
        if times.by_arrival and times.since is not None:
            self.seek_time(times.since)

    def end_of(self, times: TimeRange) -> int | None:
        """A number from which on no record is in `times`; None if none is known.

        Raises `OSError`.
        """
        if times.by_arrival and times.until is not None:
            return self.end_of_time(times.until)
        return None

    def seek_time(self, since: str) -> None:
        """Moves forward, but past no record that arrived at `since` or later.

        Bisects the headers by `latest`, which never decreases. Raises `OSError`.
        """
        start = self._look(lambda firsts: self._first_at(firsts, since))
        self.next_seq = max(self.next_seq, start)

    def seek_last(self, count: int, stop: int | None = None) -> None:
        """Moves to at least `count` records before the end or `stop`, if that many exist.

        Raises `OSError`.
        """
        self.next_seq = self._look(lambda firsts: self._before_end(firsts, count, stop))

    def read_back(
        self, stop: int | None = None, span_segments_max: int = _SPAN_SEGMENTS_MAX
    ) -> Generator[Iterator[Block], None, None]:
        """The records from `next_seq` on in spans, from the last span to the first.

        Each is read forward; read it before requesting the next. The first one returned ends at the
        end of the stream, or at `stop`; after this is closed, `next_seq` is there. Raises
        `OSError`.
        """
        begin, from_begin = self.next_seq, self.reports_removed
        firsts = _before(list_segments(self._directory), stop)
        is_last = True
        count = 1
        while firsts or is_last:
            span = firsts[-count:] or [begin]
            is_oldest = len(span) == len(firsts)
            start = begin if is_oldest and from_begin else max(begin, span[0])
            end, self.next_seq = self.next_seq, start
            try:
                yield self.read(stop=stop)
            finally:
                if not is_last:
                    self.next_seq = end
            is_last = False
            stop = span[0]
            firsts = firsts[:-count]
            # Read only the last segment first, which may be enough; then as many as can be read
            # ahead.
            count = min(2 * count, span_segments_max)

    def end(self) -> int:
        """The number after the last record's. Raises `OSError`."""
        return self._look(self._end)

    def end_of_time(self, until: str) -> int | None:
        """A number from which on every record arrived at `until` or later; None if none is known.

        Raises `OSError`.
        """
        return self._look(lambda firsts: self._end_of_time(firsts, until))

    def _look(self, look: Callable[[Sequence[int]], Result]) -> Result:
        """The result of `look` for the segments; repeated if they were merged meanwhile."""
        looks = 0
        while True:
            firsts = list_segments(self._directory)
            try:
                return look(firsts)
            except _ListingOutdated:
                looks += 1  # terminates: each listed segment may vanish only once
                _pause_after(looks)

    def _first_at(self, firsts: Sequence[int], since: str) -> int:
        def latest_before_or_in(index: int) -> str:
            for first in firsts[index::-1]:
                header = self._header(first)
                if header is not None:
                    return header.latest
            return ""

        found = bisect_left(range(len(firsts)), since, key=latest_before_or_in)
        # A segment that covers others is before them and has a later `latest`. A sealed segment is
        # never covered.
        start = firsts[found] if found < len(firsts) else self._end(firsts)
        for first in firsts[max(0, found - COVER_SEGMENTS_MAX) : found][::-1]:
            header = self._header(first)
            if header is not None and header.latest >= since:
                start = first
            if header is not None and header.is_sealed:
                break
        return start

    def _end_of_time(self, firsts: Sequence[int], until: str) -> int | None:
        """A number from which on every record is at or after `until`; None if none is known.

        Goes back from the newest segment, by what seals say about the segments before them. That
        reads the header of each unsealed segment, and of about log2 of the sealed ones.
        """
        end: int | None = None
        index = len(firsts) - 1
        while index >= 0:
            header = self._header(firsts[index])
            if header is None or header.since < until:
                if header is not None and header.is_sealed and header.latest >= until:
                    # Nothing covers it, so it is not an earlier segment that has what follows.
                    # Records that are missing after it arrived after `until` too.
                    end = None if end is None else min(end, header.last + 1)
                break
            if end is not None and header.last + 1 < end:
                break  # it is covered: an earlier segment has the records after it
            end = header.first
            if header.earlier is not UNSET and header.earlier.since >= until:
                end = header.earlier.first
            index = bisect_left(firsts, end) - 1
        return end

    def _before_end(self, firsts: Sequence[int], count: int, stop: int | None) -> int:
        start = self.next_seq
        missing = count
        following = stop
        for first in reversed(_before(firsts, stop)):
            header = self._header(first)
            if header is None:
                continue
            # If it covers others, their records are already counted.
            last = first + header.count - 1
            if following is not None:
                last = min(last, following - 1)
            here = max(0, last - first + 1)
            following = first
            start = first + max(0, here - missing)
            missing -= here
            if missing <= 0:
                break
        return start

    def _end(self, firsts: Sequence[int]) -> int:
        # An earlier segment may cover those with the last names.
        headers = map(self._header, firsts[-COVER_SEGMENTS_MAX - 1 :])
        end = max((header.last + 1 for header in headers if header is not None), default=None)
        return end if end is not None else firsts[-1] if firsts else 1

    def _read_listed(
        self, listed: Sequence[int], times: TimeRange, stop: int | None
    ) -> Iterator[Block]:
        if listed and self.next_seq < listed[0]:
            self._pass_removed(listed[0])
        firsts = _before(listed, stop)

        def wanted(header: Header) -> range:
            return wanted_frames(header, self.next_seq, times, stop)

        may_match = self._may_match(times)

        def read(first: int) -> Segment:
            return self._read(first, wanted, may_match)

        with closing(ReadAhead(firsts, read, _body_bytes)) as ahead:
            while stop is None or self.next_seq < stop:
                holding = self._holding(firsts, ahead.take)
                if holding is None:
                    if stop is not None and len(firsts) < len(listed):
                        # There are records after `stop`, so there were some before it.
                        self._gap(firsts[-1], stop)
                    return
                self._report_removed()
                while self._messages:
                    self._problem(self._messages.popleft())
                header, parts = holding
                if any(isinstance(part, DamagedRecords) for part in parts):
                    yield from self._read_damaged(firsts, header, parts, times, stop)
                    continue
                yield from self._read_whole(header, parts, times, stop)

    def _may_match(self, times: TimeRange) -> MayMatch | None:
        """What tells which frames to omit; None if nothing does."""
        searches = [] if self._frames is None else [self._frames.may_match]
        self._frame_times = None
        if not times.by_arrival and not times.holds_every_time:
            self._frame_times = FrameTimes(
                self._directory.parent, self.stream, times, self._messages.append
            )
            searches.append(self._frame_times.may_match)
        return _all_of(searches)

    def _holds_all(self, header: Header, times: TimeRange) -> bool:
        return times.holds_all(header) or (
            self._frame_times is not None and self._frame_times.encloses(header.first)
        )

    def _read_whole(
        self, header: Header, parts: Parts, times: TimeRange, stop: int | None
    ) -> Iterator[Block]:
        """The records of a segment from `next_seq` on and before `stop`."""
        start = self.next_seq
        self.next_seq = header.last + 1 if stop is None else min(header.last + 1, stop)
        self.reports_removed = True
        if header.gap is not UNSET:
            self._report_recorded(header, header.gap, times)
            return
        for block in _blocks(parts):
            rest = block.begin_at(start).end_before(self.next_seq)
            if rest.count:
                yield from [rest] if self._holds_all(header, times) else in_range(rest, times)

    def _read_damaged(
        self,
        firsts: Sequence[int],
        header: Header,
        parts: Parts,
        times: TimeRange,
        stop: int | None,
    ) -> Iterator[Block]:
        """The records that a damaged segment still proves, and those found elsewhere.

        The others may be in its plain twin, or in segments that it covers. Only records before
        `stop`.
        """
        end = header.last + 1 if stop is None else min(stop, header.last + 1)
        for part in parts:
            if isinstance(part, Block):
                yield from self._part(part, min(part.first + part.count, end), times)
                continue
            self.next_seq = max(self.next_seq, min(part.first, end))
            part_end = min(part.last + 1, end)
            lost = []
            for block in self._elsewhere(firsts, header, part):
                if self.next_seq < min(block.first, part_end):
                    lost.append(Gone(self.next_seq, min(block.first, part_end) - 1, "damaged"))
                yield from self._part(block, part_end, times)
            if self.next_seq < part_end:
                lost.append(Gone(self.next_seq, part_end - 1, "damaged"))
            for gone in lost:
                which = f"records {gone.first} to {gone.last} are not served"
                self._problem(f"{part.damage}; {which}", gone=gone)
            if not lost:
                self._problem(str(part.damage))
            self.next_seq = max(self.next_seq, part_end)
        self.next_seq = max(self.next_seq, end)

    def _part(self, block: Block, stop: int, times: TimeRange) -> Iterator[Block]:
        """The records of a block from `next_seq` on and before `stop` that are to be shown."""
        rest = block.begin_at(self.next_seq).end_before(stop)
        if rest.count > 0:
            self.next_seq = rest.first + rest.count
            yield from in_range(rest, times)

    def _elsewhere(
        self, firsts: Sequence[int], header: Header, lost: DamagedRecords
    ) -> Iterator[Block]:
        """Blocks that may contain the records that a damaged segment has lost."""

        def wanted(other: Header) -> range:
            return wanted_frames(other, self.next_seq, ALL_TIMES)

        if header.is_compressed:
            twin = self._checked(
                header.first, lambda first: read_wanted_plain(self._directory, first, wanted)
            )
            if twin is not None:
                yield from _blocks(twin[1])
        start, stop = bisect_right(firsts, header.first), bisect_right(firsts, lost.last)
        for first in firsts[start:stop][:COVER_SEGMENTS_MAX]:
            covered = self._checked(first, lambda first: self._read(first, wanted))
            if covered is not None:
                yield from _blocks(covered[1])

    def _read(
        self, first: int, wanted: Callable[[Header], range], may_match: MayMatch | None = None
    ) -> Segment:
        """Segment `first`; the plain file if the compressed one is damaged and both exist.

        Raises what `read_wanted` raises.
        """
        try:
            return read_wanted(self._directory, first, wanted, may_match)
        except DamagedSegment as damage:
            if damage.path.endswith(segment_name(first)):
                raise  # this is the plain one
            plain = read_wanted_plain(self._directory, first, wanted)
            if plain is None:
                raise
            header, parts = plain
            if parts:
                parts = [*parts, DamagedRecords(header.last + 1, header.last, damage)]
            return header, parts

    def _report_recorded(self, header: Header, gap: Gap, times: TimeRange) -> None:
        # Of records that are gone, only the times of arrival are known.
        if times.overlaps(header.since, header.until):
            gone = Gone(header.first, gap.last, "recorded", gap.why)
            self._problem(describe_gap(header.first, gap), expected=True, gone=gone)

    def _pass_removed(self, following: int) -> None:
        """Moves to `following`: the records before it are no longer kept."""
        if self.reports_removed:
            first = self.next_seq
            if self._removed is not None and self._removed.last + 1 == first:
                first = self._removed.first
            else:
                self._report_removed()
            self._removed = Gone(first, following - 1, "removed")
        self.next_seq = following

    def _report_removed(self) -> None:
        """Reports removed records that were skipped. Call this after reading what follows them.

        The segment after them may also be removed while it is opened; together they are one hole.
        """
        gone, self._removed = self._removed, None
        if gone is not None:
            what = (
                f"records {gone.first} to {gone.last} were removed before they were read, "
                "by retention or to make room on a full disk"
            )
            self._report(Problem(self.stream, what, expected=True, gone=gone))

    def _gone_before(self, following: int, reason: Reason) -> Gone | None:
        """The records from `next_seq` up to `following`, exclusive, as gone; None if none."""
        last = following - 1
        return Gone(self.next_seq, last, reason) if last >= self.next_seq else None

    def _holding(self, firsts: Sequence[int], read: Callable[[int], Segment]) -> Segment | None:
        """The segment that contains `next_seq`, skipping what cannot be read; None at the end."""
        while True:
            index = bisect_right(firsts, self.next_seq) - 1
            is_newest = index + 1 == len(firsts)
            for candidate in firsts[max(0, index - COVER_SEGMENTS_MAX) : index + 1][::-1]:
                segment = self._checked(candidate, read)
                if segment is None:
                    continue
                header, _ = segment
                if header.last >= self.next_seq:
                    return segment
                if header.is_sealed:
                    break  # nothing ever covers a sealed segment
            if is_newest:
                return None
            self._gap(firsts[index], firsts[index + 1])

    def _gap(self, before: int, following: int) -> None:
        if following > self.next_seq:
            gap = (self.next_seq, following - 1)
            which = f"records {gap[0]} to {gap[1]}"
            if self._header(before) is None:
                self._problem(
                    f"{which} are not shown: damaged", gone=self._gone_before(following, "damaged")
                )
            elif gap != self._suspected:
                # Listing a large directory takes time. If two segments appeared meanwhile, the
                # second may be listed without the first.
                self._suspected = gap
                raise _ListingOutdated
            else:
                self._problem(f"{which} are missing", gone=self._gone_before(following, "missing"))
        self.next_seq = following

    def _header(self, first: int) -> Header | None:
        segment = self._checked(first, lambda first: self._read(first, lambda _: range(0)))
        return None if segment is None else segment[0]

    def _checked(self, first: int, read: Callable[[int], Result]) -> Result | None:
        """The result of `read` for segment `first`; reports and returns None if it fails."""
        try:
            return read(first)
        except DamagedSegment as damage:
            self._problem(str(damage))
        except FileNotFoundError as error:
            # Names are never reused: one that is listed again was not merged away.
            if first not in self._vanished:
                self._vanished.add(first)
                raise _ListingOutdated from None
            self._unreadable(error)
        except OSError as error:
            self._unreadable(error)
        return None

    def _unreadable(self, error: OSError) -> None:
        self._problem(f"{error.filename} cannot be read: {error.strerror}")

    def _problem(self, what: str, *, expected: bool = False, gone: Gone | None = None) -> None:
        if what not in self._reported:
            self._reported.add(what)
            self._report(Problem(self.stream, what, expected, gone))


def _before(firsts: Sequence[int], stop: int | None) -> Sequence[int]:
    """The segments that may contain records before `stop`."""
    return firsts if stop is None else firsts[: bisect_left(firsts, stop)]


def _pause_after(looks: int) -> None:
    """Pauses a reader that has listed a directory `looks` times without progress."""
    if looks > _LOOKS_AT_ONCE:
        doublings = min(looks - _LOOKS_AT_ONCE, 30)
        time.sleep(min(_PAUSE_S_MAX, _PAUSE_S_MIN * 2**doublings))


def _body_bytes(segment: Segment) -> int:
    _, parts = segment
    return sum(len(block.body) for block in _blocks(parts))


def _all_of(searches: Sequence[MayMatch]) -> MayMatch | None:
    """What tells which frames may match all searches; None without any."""
    if len(searches) < 2:  # noqa: PLR2004
        return next(iter(searches), None)

    def may_match(first: int, segment: str) -> Sequence[bool] | None:
        found = [each(first, segment) for each in searches]
        known = [each for each in found if each is not None]
        if len({len(each) for each in known}) != 1:
            return None
        return [all(frame) for frame in zip(*known, strict=True)]

    return may_match


def _blocks(parts: Parts) -> Iterator[Block]:
    return (part for part in parts if isinstance(part, Block))


def in_range(block: Block, times: TimeRange) -> Iterator[Block]:
    """The records of `block` in the range, in blocks of neighbours."""

    def ranges() -> Iterator[tuple[int, int]]:
        start = stop = 0
        lines = block.lines()
        for line, is_held in zip(lines, times.holds_each(block.body, lines), strict=True):
            if not is_held:
                yield start, stop
                start = stop + len(line) + 1
            stop += len(line) + 1
        yield start, stop

    return block.parts(ranges())
