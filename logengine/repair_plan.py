"""Which files of a stream are to be moved away, and which gaps are to be recorded. No files.

Every number between the first segment and the last is either in a whole segment or in a
recorded gap, once this is done. A gap has the name of the damaged segment in whose place it
is; where no file was, a name of its own.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from logengine.plan import SEGMENT_RECORDS_MAX
from logengine.segment import FORMAT_VERSION, Gap, Header, segment_name
from logengine.timestamp import format_timestamp
from logengine.user_bytes import ended_users

_MISSING = "its segment is missing"
_NO_SHA256 = hashlib.sha256().hexdigest()


class Examined(NamedTuple):
    """A file under a segment's name: its header, None if that is damaged, and what is wrong."""

    first: int
    is_compressed: bool
    header: Header | None
    damage: str | None

    @property
    def name(self) -> str:
        """The file's name."""
        return segment_name(self.first, compressed=self.is_compressed)

    @property
    def last_known(self) -> int | None:
        """The last number that it accounts for, if its header tells."""
        return None if self.header is None else self.header.last


@dataclass(frozen=True)
class Removal:
    """A file that has to go, and why. A `leftover` is no damage: others hold all it holds."""

    file: Examined
    why: str
    leftover: bool


@dataclass(frozen=True)
class RepairPlan:
    """What makes a stream whole: removals and gaps, both in the order of numbers."""

    removals: list[Removal]
    gaps: list[Header]

    def replaces(self, removal: Removal) -> bool:
        """Whether a gap takes the name of the file that has to go."""
        return any(gap.file_name == removal.file.name for gap in self.gaps)


class _Hole(NamedTuple):
    """Numbers that no whole segment holds, and the damaged file that stood for them, if any."""

    first: int
    last: int
    owner: Removal | None
    is_open: bool  # whether the last number is only the highest that it can be


def plan_repair(stream: str, files: Sequence[Examined], when: str) -> RepairPlan:
    """Decides on all files of a stream; `when` is the timestamp to be recorded."""
    kept, removals = _sort_out(files)
    damaged = [removal for removal in removals if not removal.leftover]
    gaps: list[Header] = []
    for hole in _holes(kept, damaged):
        behind = bisect_right(kept, hole.first, key=_first)
        # What was recorded last may be nearer than what is whole.
        before = max(kept[:behind][-1:] + gaps[-1:], key=_first, default=None)
        after = kept[behind] if behind < len(kept) else None
        gaps.append(_gap(stream, hole, before, after, when))
    return RepairPlan(removals, gaps)


def _first(header: Header) -> int:
    return header.first


def _sort_out(files: Sequence[Examined]) -> tuple[list[Header], list[Removal]]:
    """The headers of the segments that stay, and the files that do not."""
    kept: list[Header] = []
    removals: list[Removal] = []
    next_seq = 0
    # Of a segment that is there twice, the compressed one counts.
    for file in sorted(files, key=lambda each: (each.first, not each.is_compressed)):
        header = file.header
        if file.damage is not None or header is None:
            removals.append(Removal(file, file.damage or "its header is damaged", leftover=False))
        elif file.first < next_seq and header.last < next_seq:
            removals.append(Removal(file, "covered by the segment before it", leftover=True))
        elif file.first < next_seq:
            why = f"it begins within the segment before it, which ends at {next_seq - 1}"
            removals.append(Removal(file, why, leftover=False))
        else:
            kept.append(header)
            next_seq = header.last + 1
    return kept, removals


def _holes(kept: Sequence[Header], damaged: Sequence[Removal]) -> list[_Hole]:
    holes: list[_Hole] = []
    place = min(
        [header.first for header in kept[:1]] + [removal.file.first for removal in damaged],
        default=1,
    )
    for header in kept:
        holes += _split(place, header.first - 1, damaged)
        place = header.last + 1
    # One whose header cannot be read ends, as far as anybody knows, where the next begins.
    ends = [
        _last_possible(removal)
        for removal in damaged
        if removal.file.first >= place or removal.file.last_known is not None
    ]
    end = max(ends, default=0)
    return holes + _split(place, end, damaged)


def _split(first: int, last: int, damaged: Sequence[Removal]) -> list[_Hole]:
    """The numbers from `first` to `last`, cut where a damaged file began or ended."""
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


def _owner(seq: int, damaged: Sequence[Removal]) -> Removal | None:
    """The last damaged file that may have held `seq`."""
    return next(
        (
            removal
            for removal in reversed(damaged)
            if removal.file.first <= seq <= _last_possible(removal)
        ),
        None,
    )


def _last_possible(removal: Removal) -> int:
    known = removal.file.last_known
    return removal.file.first + SEGMENT_RECORDS_MAX - 1 if known is None else known


def _gap(
    stream: str, hole: _Hole, before: Header | None, after: Header | None, when: str
) -> Header:
    """The segment that records a hole, between its neighbours."""
    owner = hole.owner.file.header if hole.owner is not None else None
    last: Header | None  # whose numbers hold on
    if owner is not None and owner.last == hole.last:
        since, until, latest = owner.since, owner.until, owner.latest
        last = owner
    else:
        # What is gone lies between what is there, as far as anybody knows.
        known = [before.latest] if before else []
        known += [after.since] if after else []
        since, until = (min(known), max(known)) if known else (format_timestamp(0),) * 2
        latest = until
        last = before
    return Header(
        version=FORMAT_VERSION,
        stream=stream,
        first=hole.first,
        count=0,
        bytes=0,
        since=since,
        until=until,
        latest=latest,
        sha256=_NO_SHA256,
        producers=last.producers if last else {},
        users=dict(ended_users(last.users)) if last and last.users is not UNSET else UNSET,
        gap=Gap(
            last=hole.last,
            when=when,
            why=hole.owner.why if hole.owner is not None else _MISSING,
            guessed=hole.is_open,
        ),
    )
