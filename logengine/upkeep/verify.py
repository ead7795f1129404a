"""Reads every byte of a stream and reports what is wrong with it."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from logengine.disk.atomic import is_temp_name
from logengine.disk.directory import Directory
from logengine.disk.segment_file import (
    list_segments,
    read_header,
    read_header_line,
    read_provable,
    read_segment,
)
from logengine.errors import DamagedSegment
from logengine.format.block import Block, runs
from logengine.format.cover import COVER_SEGMENTS_MAX
from logengine.format.json_object import fault_of_line
from logengine.format.producers import numbers_in
from logengine.format.seal_chain import SealChain
from logengine.format.segment import (
    COMPRESSED_SUFFIX,
    Header,
    describe_gap,
    first_of_name,
    timestamp_of,
)

# How often a stream is listed again because a compaction or commit changed it during the reading.
_LOOKS_MAX = 100


@dataclass(frozen=True)
class Finding:
    """A finding in a stream's directory. A `harmless` one is not damage: a leftover, a stranger."""

    path: str
    what: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def verify_stream(
    directory: Path,
    progress: Callable[[int], None] = lambda _: None,
    seals: SealChain | None = None,
) -> Iterator[Finding]:
    """Yields what is wrong in a stream; nothing if all is as it was committed.

    `progress` is called with the bytes of each file read; `seals` receives each segment. Safe
    while a daemon commits and merges. Raises `OSError`.
    """
    yield from _strangers(directory)
    seals = seals or SealChain()
    verification = _Verification(directory, progress, seals)
    looks = 0
    while looks < _LOOKS_MAX:
        try:
            yield from verification.read_listed()
        except (FileNotFoundError, _ListingOutdated):
            looks += 1
        else:
            break
    else:
        what = (
            f"from {verification.position} on it changes faster than it can be read, "
            "or its file system lists names that do not exist"
        )
        yield Finding(str(directory), what)
    yield from (Finding(str(directory), *remark) for remark in seals.end())


class _ListingOutdated(Exception):
    """The listing is outdated: a compaction or a commit has changed the directory since."""


class _Verification:
    """Reads a stream's segments in order; `position` is the next record to read."""

    def __init__(self, directory: Path, progress: Callable[[int], None], seals: SealChain) -> None:
        self.position = 1
        self._directory = directory
        self._progress = progress
        self._seals = seals
        # The segment before `position`, None if that is not known.
        self._previous: Header | None = None
        self._damaged: set[int] = set()
        self._suspected: int | None = None

    def read_listed(self) -> Iterator[Finding]:
        """Yields what is wrong from `position` on; may be called again after it raised.

        Raises `FileNotFoundError` and `_ListingOutdated` if a segment was merged, sealed or
        removed since it was listed, and `OSError`.
        """
        firsts = list_segments(self._directory)
        start = self._index_of_position(firsts)
        following = bisect_left(firsts, self.position)
        if start < following or following == 0:
            # The segment that was read last is part of another one now, or was removed.
            self._forget_previous()
        for first in firsts[start:]:
            if first in self._damaged:
                continue
            try:
                header, body = read_segment(self._directory, first)
                _, line = read_header_line(self._directory, first)
            except DamagedSegment as damage:
                yield Finding(damage.path, damage.reason)
                yield from _lost_of(self._directory, first, damage.path)
                self._damaged.add(first)
                self.position = max(self.position, first + 1)
                self._forget_previous()
                continue
            self._look_again_before(header)
            yield from self._take(header, body, line)

    def _index_of_position(self, firsts: Sequence[int]) -> int:
        """Returns the index of the segment that contains `position`, or else of the next one.

        While a compaction removes what it has covered, the last segment that begins before
        `position` may be a covered one.
        """
        end = bisect_right(firsts, self.position)
        for index in reversed(range(max(0, end - COVER_SEGMENTS_MAX), end)):
            if firsts[index] in self._damaged:
                continue
            try:
                header = read_header(self._directory, firsts[index])
            except DamagedSegment:
                return index
            if header.last >= self.position:
                return index
            if header.is_sealed:
                break  # nothing ever covers a sealed segment
        return bisect_left(firsts, self.position)

    def _look_again_before(self, header: Header) -> None:
        """Raises `_ListingOutdated` if a fault may exist only because the listing is outdated."""
        if header.is_sealed and _is_unsealed_no_more(self._directory, self._seals.unsealed):
            self._seals.look_again()
            raise _ListingOutdated
        previous = self._previous
        if previous is not None and previous.last + 1 < header.first != self._suspected:
            # The listing of a changing directory is not always a snapshot of one instant.
            self._suspected = header.first
            raise _ListingOutdated

    def _take(self, header: Header, body: bytes, line: bytes) -> Iterator[Finding]:
        path = str(self._directory / header.file_name)
        self._progress(header.stored_bytes)
        previous = self._previous
        if previous is not None and header.first <= previous.last:
            finding = _overlap(previous, header, path)
            yield finding
            if finding.harmless:
                return
        if header.gap is not UNSET:
            yield Finding(path, describe_gap(header.first, header.gap), harmless=True)
        yield from check_segment(header, body, path)
        yield from (Finding(path, *remark) for remark in self._seals.take(header, line))
        if previous is not None:
            yield from _check_neighbours(previous, header, path)
        self._previous = header
        self.position = max(self.position, header.last + 1)

    def _forget_previous(self) -> None:
        self._previous = None
        self._seals.look_again()


def _lost_of(directory: Path, first: int, path: str) -> Iterator[Finding]:
    """Yields which records a damaged file has lost, if its header and some records are left."""
    try:
        found = read_provable(directory, first, compressed=path.endswith(COMPRESSED_SUFFIX))
    except FileNotFoundError:
        return
    header = found.header
    if header is None or not found.frames:
        return
    there = {seq for frame in found.frames for seq in range(frame.first, frame.last + 1)}
    lost = [seq for seq in range(header.first, header.last + 1) if seq not in there]
    which = ", ".join(f"{first} to {last}" for first, last in runs(lost))
    what = f"its records {which} are lost, the others are proven" if lost else "no record is lost"
    yield Finding(path, what)


def _is_unsealed_no_more(directory: Path, first: int | None) -> bool:
    """Returns whether a segment that was unsealed when read is now sealed or part of a seal."""
    if first is None:
        return False
    try:
        return read_header(directory, first).is_sealed
    except FileNotFoundError:
        return True
    except DamagedSegment:
        return False


def _overlap(before: Header, after: Header, path: str) -> Finding:
    if after.last <= before.last:
        what = "covered by the segment before it, left by an interrupted merge"
        return Finding(path, what, harmless=True)
    return Finding(path, f"begins within the segment before it, which ends at {before.last}")


def _strangers(directory: Path) -> Iterator[Finding]:
    with Directory.open_itself(directory) as within:
        names = sorted(name for name in within.names() if not _is_empty_temp(within, name))
    compressed = {first_of_name(name) for name in names if name.endswith(COMPRESSED_SUFFIX)}
    for name in names:
        path = str(directory / name)
        if is_temp_name(name):
            what = "a temp: in use, or to be removed at the next start"
        elif first_of_name(name) is None:
            what = "not a file of logengine"
        elif not name.endswith(COMPRESSED_SUFFIX) and first_of_name(name) in compressed:
            what = "also exists compressed, left by an interrupted seal; not read"
        else:
            continue
        yield Finding(path, what, harmless=True)


def _is_empty_temp(within: Directory, name: str) -> bool:
    """Returns whether a name is that of a temp without content; a daemon keeps some for later."""
    if not is_temp_name(name):
        return False
    try:
        return within.stat(name, follow_links=False).st_size == 0
    except FileNotFoundError:
        return True


def check_segment(header: Header, body: bytes, path: str) -> Iterator[Finding]:
    """Yields what is wrong with the records of a segment whose hashes are right."""
    try:
        lines = Block(header.stream, header.first, header.count, body).lines()
    except DamagedSegment as damage:
        yield Finding(path, damage.reason)
        return
    for seq, line in enumerate(lines, header.first):
        reason = fault_of_line(line)
        if reason is not None:
            yield Finding(path, f"record {seq} {reason}")
    times = [timestamp_of(line) for line in lines]
    if times and (min(times), max(times)) != (header.since, header.until):
        yield Finding(
            path,
            f"its records are from {min(times)} to {max(times)}, "
            f"its header says {header.since} to {header.until}",
        )
    if header.frames is not UNSET and header.index is not UNSET:
        start = 0
        for frame, index in zip(header.frames, header.index, strict=True):
            of_frame = times[start : start + frame.count]
            if (min(of_frame), max(of_frame)) != (index.since, index.until):
                yield Finding(
                    path,
                    f"the records from {header.first + start} on are from {min(of_frame)} to "
                    f"{max(of_frame)}, its header's index says {index.since} to {index.until}",
                )
            start += frame.count


def _check_neighbours(before: Header, after: Header, path: str) -> Iterator[Finding]:
    if after.first > before.last + 1:
        yield Finding(path, f"records {before.last + 1} to {after.first - 1} before it are missing")
    if after.latest < before.latest:
        yield Finding(
            path, f"its latest is {after.latest}, but the segment before it has {before.latest}"
        )
    said = numbers_in(before)
    for producer, number in numbers_in(after).items():
        known = said.get(producer, 0)
        if number < known:
            whose = "" if producer.uid is None else f" of uid {producer.uid}"
            # Anybody who may send can have a name forgotten, and use it again from 1 on.
            what = (
                f"producer {producer.name!r}{whose} is at {number}, but was at {known} before: "
                "it was forgotten in between"
            )
            yield Finding(path, what, harmless=True)
