"""Surveys a stream's directory for work that a compaction has to do. Blocking calls."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from logengine.disk.directory import AnyDirectory, Directory, opened
from logengine.disk.segment_file import read_header, segments_among
from logengine.errors import DamagedSegment
from logengine.format.segment import Header, segment_name
from logengine.upkeep.compaction_plan import EndedSegment

# At most this many unsealed segments are surveyed at a time; if there are more, the oldest.
_SEGMENTS_MAX = 512


@dataclass(frozen=True)
class Leftover:
    """Files whose records are also in segment `first`, which was never reported as durable."""

    first: int
    names: list[str]


@dataclass
class Survey:
    """The ended and unsealed segments of a stream.

    `sealed` is the newest sealed segment, None if there is none. `seal_from` is where the next
    one must begin, None if the newest cannot be read and so none may follow. The survey covers
    everything before `ended_before` if `is_complete`, else only the oldest segments.
    """

    ended_before: int
    seal_from: int | None = None
    sealed: Header | None = None
    parts: list[EndedSegment] = field(default_factory=list)
    leftover: Leftover | None = None
    damaged: list[DamagedSegment] = field(default_factory=list)
    is_complete: bool = True
    # Segments without records, which are recorded gaps: where each begins, and the number after it.
    empty: dict[int, int] = field(default_factory=dict)

    def behind_empty(self, seq: int) -> int:
        """Returns the first number from `seq` on that is not recorded as gone."""
        while (behind := self.empty.get(seq, seq)) > seq:
            seq = behind
        return seq

    def has_room(self) -> bool:
        """Returns whether the next survey will see more, because some segments were merged."""
        return len(self.parts) < _SEGMENTS_MAX


def survey(directory: AnyDirectory, ended_before: int, damaged: Collection[int] = ()) -> Survey:
    """Surveys the segments of a stream that begin before `ended_before`.

    Segments known to be `damaged` are skipped. Costs a directory listing, and reading the header
    of each unsealed segment. Raises `OSError`.
    """
    with opened(directory) as within:
        return _survey(within, ended_before, damaged)


def _survey(directory: Directory, ended_before: int, damaged: Collection[int]) -> Survey:
    names = set(directory.names())
    firsts = [first for first in segments_among(names) if first < ended_before]
    newest = next(
        (at for at in reversed(range(len(firsts))) if _is_sealed(directory, firsts[at], names)),
        0,
    )
    found = Survey(ended_before, seal_from=firsts[0] if firsts else ended_before)
    # After a power cut, a seal may be durable while segments that an earlier seal covers are back.
    oldest_left = next((at for at in range(newest) if segment_name(firsts[at]) in names), newest)
    older = firsts[max(0, oldest_left - 1) : newest][:_SEGMENTS_MAX]
    found.leftover = _look(directory, older, names, damaged, Survey(ended_before)).leftover
    found.is_complete = len(firsts) - newest <= _SEGMENTS_MAX
    return _look(directory, firsts[newest:][:_SEGMENTS_MAX], names, damaged, found)


def _look(
    directory: Directory,
    firsts: Sequence[int],
    names: Collection[str],
    damaged: Collection[int],
    found: Survey,
) -> Survey:
    """Adds to `found` what the given neighbours show."""
    covering: Header | None = None
    for first in firsts:
        header = None if first in damaged else _header(directory, first, found)
        if header is None:
            covering = None
            if segment_name(first, compressed=True) in names:
                found.seal_from = None  # it may be a sealed one
            continue
        is_covered = covering is not None and header.count and header.last <= covering.last
        if not is_covered:
            _add(found, header)
            covering = header
        assert covering is not None
        left = [header.file_name] if is_covered else []
        if header.is_compressed and segment_name(first) in names:
            left.append(segment_name(first))
        if left and (found.leftover is None or found.leftover.first == covering.first):
            before = found.leftover.names if found.leftover else []
            found.leftover = Leftover(covering.first, [*before, *left])
    return found


def _is_sealed(directory: Directory, first: int, names: Collection[str]) -> bool:
    """Returns whether a segment is sealed, or may be because its header cannot be read."""
    if segment_name(first, compressed=True) not in names:
        return False
    try:
        return read_header(directory, first).is_sealed
    except DamagedSegment:
        return True


def _header(directory: Directory, first: int, found: Survey) -> Header | None:
    try:
        return read_header(directory, first)
    except DamagedSegment as damage:
        found.damaged.append(damage)
        return None


def _add(found: Survey, header: Header) -> None:
    if header.is_sealed:
        found.sealed = header
        found.seal_from = header.last + 1
    elif header.count:
        part = EndedSegment(header.first, header.last, header.bytes, header.is_compressed)
        found.parts.append(part)
    else:
        found.empty[header.first] = header.last + 1
        if found.seal_from == header.first:
            found.seal_from = header.last + 1  # it contains nothing to seal
