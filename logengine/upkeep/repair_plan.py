"""Plans the repair of a stream: files to move away, segments and gaps to write. No files.

After the repair, every number between the first segment and the last is in a whole segment or in a
recorded gap, and `verify` finds nothing. All records that files prove are kept: the sound frames of
a damaged segment, and each number once from segments that overlap. A gap takes the name of the
damaged segment that it replaces, or a new name if there was no file.
"""

import hashlib
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from logengine.format.producers import HeaderKeys, numbers_in, with_numbers
from logengine.format.seal_chain import SealChain
from logengine.format.segment import (
    FORMAT_VERSION,
    Gap,
    Header,
    Restored,
    UserBytes,
    encode_header,
    segment_name,
)
from logengine.format.timestamp import format_timestamp
from logengine.format.user_bytes import ended_users
from logengine.store.plan import SEGMENT_RECORDS_MAX

_MISSING = "its segment is missing"
_NO_SHA256 = hashlib.sha256().hexdigest()
# Each round removes the faults that the one before revealed; there is no third kind of fault.
_CHAIN_ROUNDS = 3


class Span(NamedTuple):
    """Consecutive records, from number `first` to `last`, and their least and greatest `_ts`."""

    first: int
    last: int
    since: str
    until: str


class Examined(NamedTuple):
    """A file under a segment's name: its header, None if that is damaged, and what is wrong.

    `first` is the number in its name; if the header has another one, the header is right and the
    name is wrong. `line` is the header's line. For a damaged file, `proven` are the records known
    to be as they were stored; `is_intact` if those are all of them, and only what follows is wrong.
    """

    first: int
    is_compressed: bool
    header: Header | None
    damage: str | None
    line: bytes = b""
    proven: tuple[Span, ...] = ()
    is_intact: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return segment_name(self.first, compressed=self.is_compressed)

    @property
    def last_known(self) -> int | None:
        """The last number that it accounts for, if its header is known."""
        return None if self.header is None else self.header.last

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.header is not None and self.damage is None

    def spans(self) -> tuple[Span, ...]:
        """Returns the records that it proves."""
        header = self.header
        if header is None or not self.is_whole:
            return self.proven
        if not header.count:
            return ()
        return (Span(header.first, header.last, header.since, header.until),)


@dataclass(frozen=True)
class FileRemoval:
    """A file to remove, and why. A `leftover` is not damage: other files have all its records."""

    file: Examined
    why: str
    leftover: bool


class Piece(NamedTuple):
    """A segment to write from records of `source`.

    `header` is complete except for what depends on the records' bytes. With `line`, the header is
    written as that line.
    """

    header: Header
    source: Examined
    line: bytes | None


@dataclass(frozen=True)
class RepairPlan:
    """A repair: removals, gaps and pieces, each in the order of their numbers.

    Before anything else, whole files get their right names by `links`, each of an existing name
    and a new one.
    """

    links: list[tuple[str, str]]
    removals: list[FileRemoval]
    gaps: list[Header]
    pieces: list[Piece]

    @cached_property
    def _names(self) -> set[str]:
        written = [*self.gaps, *(piece.header for piece in self.pieces)]
        return {header.file_name for header in written}

    def replaces(self, removal: FileRemoval) -> bool:
        """Returns whether a written file takes the name of the file to remove."""
        return removal.file.name in self._names


@dataclass
class _Element:
    """A segment of the stream after the repair; `line` is its header's line if that stays.

    `source` is the file that has its records; `is_there` if that file is the segment itself. For a
    new segment, `is_end_known` says whether its producers and users are those at its end.
    """

    header: Header
    source: Examined | None
    line: bytes | None = None
    is_there: bool = False
    is_end_known: bool = True
    is_rest: bool = False  # the rest of a gap, some of whose records were put back

    @property
    def has_records(self) -> bool:
        return self.header.gap is UNSET and self.header.count > 0

    @property
    def is_new_gap(self) -> bool:
        return self.header.gap is not UNSET and not self.is_there


class _Hole(NamedTuple):
    """Numbers that no file proves, and the damaged file that accounted for them, if any."""

    first: int
    last: int
    owner: FileRemoval | None
    is_open: bool  # whether the last number is only an upper bound


class _Numbers:
    """Numbers that are accounted for, as disjoint ranges that are not empty."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def free(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yields the ranges from `first` to `last` that are not accounted for."""
        at = max(0, bisect_right(self.ranges, first, key=_first_of_range) - 1)
        for start, stop in self.ranges[at:]:
            if start > last:
                break
            if stop < first:
                continue
            if start > first:
                yield first, start - 1
            first = stop + 1
        if first <= last:
            yield first, last

    def take(self, first: int, last: int) -> None:
        """Adds a range, none of which is accounted for yet."""
        insort(self.ranges, (first, last))


def plan_repair(stream: str, files: Sequence[Examined], when: str) -> RepairPlan:
    """Decides about all files of a stream; `when` is the timestamp to record."""
    return _Planning(stream, files, when).plan()


class _Planning:
    def __init__(self, stream: str, files: Sequence[Examined], when: str) -> None:
        self._stream = stream
        self._removals: list[FileRemoval] = []
        self._links: list[tuple[str, str]] = []
        # If a segment exists both plain and compressed, the compressed one counts.
        self._files = sorted(
            self._rightly_named(files), key=lambda each: (each.first, not each.is_compressed)
        )
        self._when = when
        self._numbers = _Numbers()
        self._elements: list[_Element] = []

    def plan(self) -> RepairPlan:
        for file in self._files:
            if file.header is None or file.header.gap is UNSET:
                self._take_records(file)
        # Records take precedence over gaps: what was recorded as gone may have been put back.
        for file in self._files:
            if file.header is not None and file.header.gap is not UNSET:
                self._take_gap(file, file.header, file.header.gap)
        damaged = [removal for removal in self._removals if not removal.leftover]
        damaged.sort(key=lambda each: (each.file.first, not each.file.is_compressed))
        self._elements.sort(key=_first_of)
        # An empty segment uses no number, but the next one begins at its number.
        taken = [(each.header.first, each.header.last) for each in self._elements]
        for hole in _holes(taken, damaged):
            self._elements.append(self._gap_in(hole))
        self._elements.sort(key=_first_of)
        self._fit_times()
        self._drop_empty()
        self._mend_chain()
        self._removals.sort(key=lambda each: (each.file.first, not each.file.is_compressed))
        new = [each for each in self._elements if not each.is_there]
        return RepairPlan(
            self._links,
            self._removals,
            [each.header for each in new if each.source is None],
            [Piece(each.header, each.source, each.line) for each in new if each.source],
        )

    def _rightly_named(self, files: Sequence[Examined]) -> Iterator[Examined]:
        """Yields the files, misnamed ones under their right name if that is free."""
        names = {file.name for file in files}
        for file in files:
            header = file.header
            if header is None or header.first == file.first:
                yield file
            elif file.is_intact and header.file_name not in names:
                names.add(header.file_name)
                self._links.append((file.name, header.file_name))
                self._removals.append(FileRemoval(file, file.damage or "", leftover=True))
                yield file._replace(first=header.first, damage=None, proven=())
            else:
                yield file._replace(header=None, proven=())

    def _take_records(self, file: Examined) -> None:
        """Keeps a file that is whole and needed entirely, else only what no other file proves."""
        header = file.header
        parts = [
            span._replace(first=first, last=last)
            for span in file.spans()
            for first, last in self._numbers.free(span.first, span.last)
        ]
        for part in parts:
            self._numbers.take(part.first, part.last)
        if header is None:
            self._removals.append(FileRemoval(file, file.damage or "its header is damaged", False))
            return
        has_all = [(part.first, part.last) for part in parts] == [(header.first, header.last)]
        if not header.count:
            has_all = list(self._numbers.free(header.first, header.first)) != []
        if file.is_whole and has_all:
            self._elements.append(_Element(header, file, file.line, is_there=True))
            return
        if not file.is_whole:
            self._removals.append(FileRemoval(file, file.damage or "", leftover=False))
        elif not parts:
            why = "covered by the segment before it"
            self._removals.append(FileRemoval(file, why, leftover=True))
        else:
            why = "another file has some of its records too; the others are kept"
            self._removals.append(FileRemoval(file, why, leftover=True))
        if file.is_intact and has_all:
            self._elements.append(_Element(header, file, file.line))
            return
        for part in parts:
            self._elements.append(self._piece(file, header, part, is_first=part is parts[0]))

    def _piece(self, file: Examined, source: Header, part: Span, *, is_first: bool) -> _Element:
        """Returns a segment of some of a file's records, with the file's producers and users."""
        is_last = part.last == source.last
        _, until = _times_in(source, source.first, part.last)
        header = msgspec.structs.replace(
            source,
            first=part.first,
            count=part.last - part.first + 1,
            since=part.since,
            until=part.until,
            latest=source.latest if is_last else max(part.until, until),
            earlier=source.earlier if is_first else UNSET,
            signature=UNSET,
        )
        if source.users is not UNSET:
            header = msgspec.structs.replace(header, users=dict(ended_users(source.users)))
        if source.is_sealed:
            header = self._restored(header, file, file.damage or "it overlapped another")
        return _Element(header, file, is_end_known=is_last)

    def _restored(self, header: Header, file: Examined, why: str) -> Header:
        """Returns a sealed segment's header, marked as restored from the segment in `file`."""
        source = file.header
        assert source is not None
        before = source.restored
        if before is not UNSET:  # again: the original header lacks what was erased since
            return msgspec.structs.replace(
                header, restored=msgspec.structs.replace(before, when=self._when, why=why)
            )
        try:
            line = file.line.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            line = ""
        return msgspec.structs.replace(
            header, restored=Restored(when=self._when, why=why, header=line), erased=UNSET
        )

    def _take_gap(self, file: Examined, header: Header, gap: Gap) -> None:
        free = list(self._numbers.free(header.first, gap.last))
        for first, last in free:
            self._numbers.take(first, last)
        if file.damage is not None:
            self._removals.append(FileRemoval(file, file.damage, leftover=False))
        elif free == [(header.first, gap.last)]:
            self._elements.append(_Element(header, file, file.line, is_there=True))
            return
        else:
            why = "the records that it records as gone exist"
            self._removals.append(FileRemoval(file, why, leftover=True))
        for first, last in free:
            rest = msgspec.structs.replace(
                header, first=first, gap=msgspec.structs.replace(gap, last=last)
            )
            is_end = last == gap.last
            self._elements.append(_Element(rest, None, is_end_known=is_end, is_rest=True))

    def _gap_in(self, hole: _Hole) -> _Element:
        """Returns the segment that records a hole; `_fit_new` later adapts it to its neighbours."""
        owner = hole.owner.file if hole.owner is not None else None
        source = owner.header if owner is not None else None
        since = until = latest = ""
        producers = HeaderKeys({}, UNSET)
        users: dict[int, UserBytes] | UnsetType = UNSET
        is_end_known = source is not None and source.last == hole.last
        if source is not None:
            since, until = _times_in(source, hole.first, hole.last)
            latest = source.latest if is_end_known else until
            producers = HeaderKeys(source.producers, source.producers_of)
            if source.users is not UNSET:
                users = dict(ended_users(source.users))
        header = Header(
            version=FORMAT_VERSION,
            stream=self._stream,
            first=hole.first,
            count=0,
            bytes=0,
            since=since,
            until=until,
            latest=latest,
            sha256=_NO_SHA256,
            producers=producers.producers,
            producers_of=producers.producers_of,
            users=users,
            gap=Gap(
                last=hole.last,
                when=self._when,
                why=hole.owner.why if hole.owner is not None else _MISSING,
                guessed=hole.is_open,
            ),
        )
        return _Element(header, None, is_end_known=is_end_known)

    def _drop_empty(self) -> None:
        """Drops segments without records that another segment follows."""
        kept = []
        for element, behind in zip(self._elements, [*self._elements[1:], None], strict=True):
            is_empty = element.header.count == 0 and element.header.gap is UNSET
            if is_empty and behind is not None and element.source is not None:
                why = "it has no records, and is not the newest"
                if element.is_there:
                    self._removals.append(FileRemoval(element.source, why, leftover=True))
            else:
                kept.append(element)
        self._elements = kept

    def _fit_times(self) -> None:
        """Makes `latest` never decrease, and adapts new segments to their neighbours."""
        bounds = [""] * len(self._elements)
        bound = ""
        for at in reversed(range(len(self._elements))):
            bounds[at] = bound
            element = self._elements[at]
            if element.line is not None and not (bound and bound < element.header.latest):
                bound = element.header.latest
        before: Header | None = None
        for at, element in enumerate(self._elements):
            if element.line is None:
                after = next((e.header for e in self._elements[at + 1 :] if not e.is_new_gap), None)
                self._fit_new(element, before, after, bounds[at])
            elif before is not None and element.header.latest < before.latest:
                why = f"its latest was {element.header.latest}, less than that before it"
                self._write_anew(element, why, latest=before.latest)
            before = element.header

    def _fit_new(
        self, element: _Element, before: Header | None, after: Header | None, bound: str
    ) -> None:
        header = element.header
        if not header.latest:
            # As far as is known, what is gone lies between its neighbours.
            known = [before.latest] if before else []
            known += [after.since] if after else []
            since, until = (min(known), max(known)) if known else (format_timestamp(0),) * 2
            header = msgspec.structs.replace(header, since=since, until=until, latest=until)
        floor = before.latest if before else ""
        latest = max(header.latest, floor)
        if bound:
            latest = max(min(latest, bound), floor)
        since, until = header.since, header.until
        if header.gap is UNSET:
            latest = max(latest, until)
        else:
            until = min(until, latest)
            since = min(since, until)
        header = msgspec.structs.replace(header, since=since, until=until, latest=latest)
        if not element.is_end_known:
            users: dict[int, UserBytes] | UnsetType = UNSET
            if before is not None and before.users is not UNSET:
                users = dict(ended_users(before.users))
            header = msgspec.structs.replace(
                header,
                producers=before.producers if before else {},
                producers_of=before.producers_of if before else UNSET,
                users=users,
            )
        elif element.is_rest and before is not None:
            # The recorded gap did not know about the records that were put back.
            said = numbers_in(header)
            farther = {
                producer: number
                for producer, number in numbers_in(before).items()
                if number > said.get(producer, 0)
            }
            header = with_numbers(header, said | farther)
        element.header = header

    def _write_anew(self, element: _Element, why: str, **changes: object) -> None:
        """Schedules a segment that stays to be rewritten with a different header."""
        file = element.source
        header = msgspec.structs.replace(element.header, signature=UNSET, **changes)
        if element.is_there:
            assert file is not None
            self._removals.append(FileRemoval(file, f"rewritten: {why}", leftover=True))
        if header.is_sealed:
            assert file is not None
            header = self._restored(header, file, why)
        if header.gap is not UNSET:
            element.source = None
        element.header, element.line, element.is_there = header, None, False

    def _mend_chain(self) -> None:
        """Seals what is unsealed between seals, and marks where the chain is broken."""
        sealed = [at for at, each in enumerate(self._elements) if each.header.is_sealed]
        for element in self._elements[: sealed[-1] if sealed else 0]:
            if element.has_records and not element.header.is_sealed:
                self._seal(element)
        for _ in range(_CHAIN_ROUNDS):
            chain = SealChain()
            for element in self._elements:
                header = element.header
                remarks = chain.take(header, element.line or encode_header(header))
                wrong = [remark.what for remark in remarks if not remark.is_note]
                if not wrong:
                    continue
                if element.line is not None:
                    self._write_anew(element, wrong[0], earlier=UNSET)
                else:
                    element.header = msgspec.structs.replace(header, earlier=UNSET)

    def _seal(self, element: _Element) -> None:
        """Schedules an unsealed segment that stands before a seal to be written sealed."""
        why = "it was not sealed, but stood before a segment that is"
        if element.is_there:
            self._write_anew(element, why)
        restored = Restored(when=self._when, why=why)
        prev = ""
        header = element.header
        seal = self._damaged_seal_of(header)
        if seal is not None and seal.header is not None:
            restored = self._restored(header, seal, why).restored or restored
            prev = seal.header.prev or ""
        element.line = None
        element.header = msgspec.structs.replace(
            header,
            prev=prev,
            restored=restored,
            frames=header.frames or (),
            index=header.index or (),
        )

    def _damaged_seal_of(self, header: Header) -> Examined | None:
        """Returns the damaged seal that covered a segment and had its records, or None."""
        for removal in self._removals:
            seal = removal.file.header
            if (
                seal is not None
                and not removal.leftover
                and seal.is_sealed
                and seal.first <= header.first
                and header.last <= seal.last
            ):
                return removal.file
        return None


def _first_of(element: _Element) -> int:
    return element.header.first


def _first_of_range(numbers: tuple[int, int]) -> int:
    return numbers[0]


def _times_in(header: Header, first: int, last: int) -> tuple[str, str]:
    """Returns the time range of a segment's records `first` to `last`, as its header gives it."""
    if header.frames is UNSET or header.index is UNSET:
        return header.since, header.until
    entries = []
    begin = header.first
    for frame, entry in zip(header.frames, header.index, strict=True):
        if begin <= last and first < begin + frame.count:
            entries.append(entry)
        begin += frame.count
    if not entries:
        return header.since, header.until
    return min(entry.since for entry in entries), max(entry.until for entry in entries)


def _holes(taken: Sequence[tuple[int, int]], damaged: Sequence[FileRemoval]) -> list[_Hole]:
    holes: list[_Hole] = []
    place = min(
        [first for first, _ in taken[:1]] + [removal.file.first for removal in damaged],
        default=1,
    )
    for first, last in taken:
        holes += _split(place, first - 1, damaged)
        place = last + 1
    # A file whose header cannot be read is taken to end where the next one begins.
    ends = [
        _last_possible(removal)
        for removal in damaged
        if removal.file.first >= place or removal.file.last_known is not None
    ]
    end = max(ends, default=0)
    return holes + _split(place, end, damaged)


def _split(first: int, last: int, damaged: Sequence[FileRemoval]) -> list[_Hole]:
    """Returns the numbers from `first` to `last`, split where a damaged file began or ended."""
    if last < first:
        return []
    starts = {first}
    for removal in damaged:
        starts.add(removal.file.first)
        if removal.file.last_known is not None:
            starts.add(removal.file.last_known + 1)
    inside = sorted(start for start in starts if first <= start <= last)
    holes = []
    for start, stop in zip(inside, [*inside[1:], last + 1], strict=True):
        owner = _owner(start, damaged)
        is_open = (
            owner is not None
            and owner.file.last_known is None
            and stop - start >= SEGMENT_RECORDS_MAX
        )
        holes.append(_Hole(start, stop - 1, owner, is_open))
    return holes


def _owner(seq: int, damaged: Sequence[FileRemoval]) -> FileRemoval | None:
    """Returns the last damaged file that may have contained `seq`, or None."""
    return next(
        (
            removal
            for removal in reversed(damaged)
            if removal.file.first <= seq <= _last_possible(removal)
        ),
        None,
    )


def _last_possible(removal: FileRemoval) -> int:
    known = removal.file.last_known
    return removal.file.first + SEGMENT_RECORDS_MAX - 1 if known is None else known
