"""Checks the daemon's promises after every event.

The oracle knows every record that was sent. It observes each name of a segment that is given
or removed, each answer that leaves the daemon, and each line of its log. Segments are
judged only by the documented format (`tests.crash.rig.walker`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from logengine.format.segment import first_of_name
from tests.crash.rig.walker import decompressed, fault_of
from tests.simulation.disk import Directory, Disk, Inode

_ROW = re.compile(rb'"p":"([^"]+)","n":(\d+)')
_ROWS_SHOWN = 8


class Violation(Exception):
    """A promise was broken; `rule` names it, the same for all breaches of one kind."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
        self.what = what

    def __reduce__(self) -> tuple[type["Violation"], tuple[str, str]]:
        return Violation, (self.rule, self.what)


@dataclass(eq=False)
class Sent:
    """Everything that one name sends to one stream: numbers from 1, some of them refused."""

    stream: str
    name: str
    refused: frozenset[int] = frozenset()
    most: int = 0  # the greatest number that was sent
    promised: int = 0  # the daemon reported everything up to here as durable
    trimmed: int = 0  # the oldest may be gone up to here
    dropped: set[int] = field(default_factory=set)  # by a quota, and not sent again since

    def stored_up_to(self, number: int) -> int:
        """The greatest number up to `number` that must be stored; 0 if there is none."""
        while number in self.refused or number in self.dropped:
            number -= 1
        return number

    def following(self, number: int) -> int:
        """The next number that must be stored."""
        number += 1
        while number in self.refused or number in self.dropped:
            number += 1
        return number

    def may_follow(self, before: int, number: int) -> bool:
        """Whether `number` may follow `before` in storage: nothing in between must be stored."""
        return before < number <= self.following(before)


@dataclass(eq=False)
class Segment:
    """What the oracle has read from a file: its numbers, and which senders' records it has."""

    first: int
    last: int
    is_sealed: bool
    spans: dict[bytes, tuple[int, int]]
    rows: list[tuple[bytes, int]]
    prev: str | None
    header_sha256: str
    announced: int = 0  # records that a quota dropped, according to its own records


@dataclass
class _Stream:
    """What is known about one stream on the disk."""

    begins: int = 1
    trims: bool = False  # its oldest segments may be removed
    gone_before: int = 1  # everything below this number may be gone
    newest_version: int = -1
    sure: list[Segment] = field(default_factory=list)


class Oracle:
    """Checks the promises. Every method raises `Violation` if one is broken."""

    def __init__(
        self,
        disk: Callable[[], Disk],
        trims: Callable[[str], bool],
        seals_only: Callable[[str], bool],
    ) -> None:
        self._disk = disk
        self._trims = trims
        self._seals_only = seals_only
        self.cursors: dict[str, list[int]] = {}  # for each stream, how far its readers are
        self.sent: dict[bytes, Sent] = {}
        self._streams: dict[str, _Stream] = {}
        self.odd_lines_allowed: set[str] = set()  # streams to which half records were sent
        self.segments_read = 0
        self.acks = 0
        # What quotas dropped from each stream: all of it, and what a stop announced at last.
        self.dropped: Counter[str] = Counter()
        self.dropped_and_told: Counter[str] = Counter()
        self.on_trimmed: Callable[[str, str, Segment], None] = lambda *_: None

    def sender(self, stream: str, name: str, refused: Iterable[int] = ()) -> Sent:
        """Registers a sender before its first record."""
        sent = self.sent[name.encode()] = Sent(stream, name, frozenset(refused))
        return sent

    def _stream(self, name: str) -> _Stream:
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = _Stream(trims=self._trims(name))
        return found

    # Names of segments --------------------------------------------------------------------

    def name_changed(
        self, directory: Directory, name: str, before: Inode | None, after: Inode | None
    ) -> None:
        """A name in a directory now refers to something else, for every process."""
        if first_of_name(name) is None:
            return
        if after is not None:
            self._appeared(directory, name, before, after)
        elif before is not None:
            self._vanished(directory, name, before)

    def _appeared(
        self, directory: Directory, name: str, before: Inode | None, after: Inode
    ) -> None:
        after.is_final = True
        segment = self.read(directory.name, name, after)
        if not after.survives_with_name:
            raise Violation(
                "visible before durable", f"{directory.name}/{name} is not fsynced and has its name"
            )
        if before is not None:
            replaced = before.seen
            assert isinstance(replaced, Segment)
            for who, (low, high) in replaced.spans.items():
                promised = min(high, self.sent[who].promised)
                lowest, highest = segment.spans.get(who, (0, 0))
                if low <= promised and (highest < promised or lowest > low):
                    raise Violation(
                        "replaced by less",
                        f"{directory.name}/{name} held {who.decode()} {low}..{high}, promised up"
                        f" to {promised}, and is replaced by one with {lowest}..{highest}",
                    )
            return
        for inode in directory.entries.values():
            other = inode.seen
            if isinstance(other, Segment) and other.first < segment.first <= other.last:
                what = f"{directory.name}/{name} begins within {other.first}..{other.last}"
                raise Violation("two segments with one number", what)
        stream = self._stream(directory.name)
        if segment.first <= stream.gone_before or not self._visible_below(directory, segment.first):
            return
        # A new segment: everything before it must survive any cut.
        sure = self._sure(directory)
        if not any(each.first < segment.first <= each.last + 1 for each in sure) and not any(
            each.first == segment.first for each in sure
        ):
            raise Violation(
                "hole",
                f"{directory.name}/{name} begins at {segment.first}, and of what is before it a"
                f" cut leaves {[(each.first, each.last) for each in sure][-_ROWS_SHOWN:]}",
            )

    def _visible_below(self, directory: Directory, first: int) -> bool:
        return any((first_of_name(name) or first) < first for name in directory.entries) or (
            first > 1
        )

    def _vanished(self, directory: Directory, name: str, before: Inode) -> None:
        segment = before.seen
        if not isinstance(segment, Segment):
            return
        sure = self._sure(directory)
        if any(each.first <= segment.first and each.last >= segment.last for each in sure):
            return
        stream = self._stream(directory.name)
        if not stream.trims:
            promised = [
                f"{who.decode()} {low}..{high}"
                for who, (low, high) in segment.spans.items()
                if low <= self.sent[who].promised
            ]
            if promised:
                raise Violation(
                    "removed", f"{directory.name}/{name}, with {promised}, which nothing covers"
                )
            return
        older = [
            other
            for other in {*directory.entries, *directory.durable_entries}
            if (first_of_name(other) or segment.first) < segment.first
        ]
        if older:
            raise Violation(
                "removed before older ones",
                f"{directory.name}/{name} goes, and {sorted(older)} may be there after a cut",
            )
        if self._seals_only(directory.name):
            if not segment.is_sealed:
                raise Violation("removed unsealed", f"{directory.name}/{name}")
            behind = [seq for seq in self.cursors.get(directory.name, []) if seq < segment.last]
            if behind:
                what = f"{directory.name}/{name} ends at {segment.last}, and is read up to {behind}"
                raise Violation("removed before it was read", what)
        if not any(each.first > segment.first for each in sure):
            raise Violation("newest removed", f"{directory.name}/{name} is the newest durable one")
        self.on_trimmed(directory.name, name, segment)
        stream.gone_before = max(stream.gone_before, segment.last + 1)
        for who, (_, high) in segment.spans.items():
            sent = self.sent[who]
            sent.trimmed = max(sent.trimmed, high)

    @staticmethod
    def rows(body: bytes) -> list[tuple[bytes, int]]:
        """The sender and the number of each record in some lines."""
        return [(who, int(number)) for who, number in _ROW.findall(body)]

    def read(self, stream: str, name: str, inode: Inode) -> Segment:
        """Reads a segment, which must be complete."""
        content = inode.content
        if isinstance(inode.seen, Segment):
            return inode.seen
        self.segments_read += 1
        path = Path(stream, name)
        if fault := fault_of(path, content):
            raise Violation("broken file", f"{stream}/{name}: {fault}")
        line, _, body = decompressed(path, content).partition(b"\n")
        header: Mapping[str, Any] = msgspec.json.decode(line)
        found = _ROW.findall(body)
        announced = 0
        if len(found) != header["count"]:
            found = []
            for each in body.split(b"\n")[:-1]:
                if row := _ROW.findall(each):
                    found.append(row[0])
                else:
                    announced += self._announced(stream, name, each)
        rows = [(who, int(number)) for who, number in found]
        segment = Segment(
            header["first"],
            header["first"] + header["count"] - 1,
            "prev" in header,
            self._spans(stream, name, rows),
            rows,
            header.get("prev"),
            header.get("header_sha256", ""),
            announced,
        )
        inode.seen = segment
        return segment

    def _announced(self, stream: str, name: str, line: bytes) -> int:
        """How many dropped records a line that no sender sent reports."""
        if b'"event":"records_dropped"' in line:
            return int(msgspec.json.decode(line)["records"])
        if stream in self.odd_lines_allowed:
            return 0
        raise Violation("foreign record", f"{stream}/{name}: {line[:120]!r} was never sent")

    def _spans(
        self, stream: str, name: str, rows: list[tuple[bytes, int]]
    ) -> dict[bytes, tuple[int, int]]:
        """The range of each sender's numbers; no number in it may be missing."""
        spans: dict[bytes, tuple[int, int]] = {}
        for who, number in rows:
            sent = self.sent.get(who)
            if sent is None or sent.stream != stream or number > sent.most:
                raise Violation("foreign record", f"{stream}/{name}: {who!r} {number}")
            span = spans.get(who)
            if span is None:
                spans[who] = (number, number)
                continue
            if number != span[1] + 1 and not sent.may_follow(span[1], number):
                what = "twice or out of order" if number <= span[1] else "a hole"
                raise Violation(
                    what, f"{stream}/{name}: {who.decode()} {number} comes after {span[1]}"
                )
            spans[who] = (span[0], number)
        return spans

    # What survives a power cut ------------------------------------------------------------

    def _sure(self, directory: Directory) -> list[Segment]:
        """The segments that survive any cut, in order."""
        stream = self._stream(directory.name)
        if stream.newest_version != directory.version:
            stream.newest_version = directory.version
            stream.sure = [
                inode.seen
                for name, inode in sorted(directory.sure.items())
                if isinstance(inode.seen, Segment) and inode.is_durable
            ]
            # For a name that a pending change replaces, what both files have.
            names = {name for each in directory.pending for name in each.names}
            for name in names:
                if first_of_name(name) is not None and (both := self._of_all(directory, name)):
                    stream.sure.append(both)
            stream.sure.sort(key=lambda each: each.first)
        return stream.sure

    def _of_all(self, directory: Directory, name: str) -> Segment | None:
        """What a name has after any cut, if it exists; this may be less than there really is."""
        shortest: Segment | None = None
        for inode in directory.possible(name):
            if inode is None or not isinstance(inode.seen, Segment):
                return None
            if not inode.survives_with_name:
                return None
            if shortest is None or inode.seen.last < shortest.last:
                shortest = inode.seen
        return shortest

    def promise(self, sent: Sent, number: int, how: str) -> None:
        """A sender's records up to `number` are reported as durable: they must be."""
        if number <= sent.promised:
            return
        if number > sent.most:
            raise Violation(
                "never sent", f"{how} of {sent.name} says {number}, and {sent.most} were sent"
            )
        self.acks += 1
        needed = sent.stored_up_to(number)
        enough = max(sent.promised, sent.trimmed)
        if needed > enough and not self._is_sure(sent, needed, enough):
            raise Violation(
                "acknowledged and not durable",
                f"{how} of {sent.name} in {sent.stream} says {number}; a power cut may leave"
                f" {self._spans_of(sent)}, and {enough} was promised before",
            )
        sent.promised = number

    def show(self, stream: str, seq: int, line: bytes) -> None:
        """A follower shows a record: exactly this record must survive any cut."""
        directory = self._directory(stream)
        for segment in self._sure(directory) if directory is not None else ():
            if segment.first <= seq <= segment.last:
                row = _ROW.search(line)
                at = seq - segment.first
                is_this = len(segment.rows) != segment.last - segment.first + 1 or (
                    row is not None and segment.rows[at] == (row[1], int(row[2]))
                )
                if not is_this:
                    raise Violation("another record shown", f"{stream}:{seq}: {line[:120]!r}")
                return
        if seq < self._stream(stream).gone_before:
            return
        raise Violation("shown and not durable", f"{stream}:{seq}: {line[:120]!r}")

    def begins(self, stream: str) -> int:
        """The number below which everything may be gone."""
        return self._stream(stream).gone_before

    def end_of(self, stream: str) -> int:
        """The number after the last stored one."""
        data = self._disk().root.entries.get("data")
        directory = data.entries.get(stream) if isinstance(data, Directory) else None
        if not isinstance(directory, Directory):
            return 1
        segments = [i.seen for i in directory.entries.values() if isinstance(i.seen, Segment)]
        return max((segment.last + 1 for segment in segments), default=1)

    def _directory(self, stream: str) -> Directory | None:
        root = self._disk().root
        data = root.sure.get("data")
        found = data.sure.get(stream) if isinstance(data, Directory) else None
        return found if isinstance(found, Directory) else None

    def _is_sure(self, sent: Sent, needed: int, enough: int) -> bool:
        directory = self._directory(sent.stream)
        if directory is None:
            return False
        who = sent.name.encode()
        for segment in reversed(self._sure(directory)):
            span = segment.spans.get(who)
            if span is not None and span[1] >= needed >= span[0]:
                needed = sent.stored_up_to(span[0] - 1)
                if needed <= enough:
                    return True
        return False

    def _spans_of(self, sent: Sent) -> str:
        directory = self._directory(sent.stream)
        if directory is None:
            return "not even its directory"
        who = sent.name.encode()
        spans = [each.spans[who] for each in self._sure(directory) if who in each.spans]
        return f"{spans[-_ROWS_SHOWN:]}"

    # Everything that is stored -----------------------------------------------------------

    def forget_reading(self) -> None:
        """The disk was replaced: what is known about its directories is outdated."""
        for stream in self._streams.values():
            stream.newest_version = -1

    def look_at_all(self, when: str, *, is_cut: bool = False) -> None:
        """Checks all that is stored: complete, once, in order, with all that was promised."""
        data = self._disk().root.entries.get("data")
        directories = data.entries if isinstance(data, Directory) else {}
        kept: dict[bytes, int] = {}
        for stream, directory in directories.items():
            if isinstance(directory, Directory) and not stream.startswith("."):
                self._look_at(stream, directory, kept, when)
        for who, sent in self.sent.items():
            needed = sent.stored_up_to(sent.promised)
            if needed > max(kept.get(who, 0), sent.trimmed):
                raise Violation(
                    "lost",
                    f"{when}: {sent.stream} has {sent.name} up to {kept.get(who, 0)}, and"
                    f" {sent.promised} was promised",
                )

    def _look_at(  # noqa: PLR0912 - one check of each property
        self, stream: str, directory: Directory, kept: dict[bytes, int], when: str
    ) -> None:
        known = self._stream(stream)
        next_seq = 0
        announced = 0
        last: dict[bytes, int] = {}
        names = sorted(
            (first, name)
            for name in directory.entries
            if (first := first_of_name(name)) is not None
        )
        seal: str | None = None
        for first, name in names:
            if name + ".zst" in directory.entries:
                continue
            segment = self.read(stream, name, directory.entries[name])
            if next_seq and segment.last < next_seq and first < next_seq:
                continue  # a merge left it
            if not next_seq:
                if first > known.gone_before:
                    raise Violation("lost", f"{when}: {stream} begins at {first}")
                if first > 1 and not known.trims:
                    raise Violation("lost", f"{when}: {stream} begins at {first}")
            elif first != next_seq:
                raise Violation("hole", f"{when}: {stream}/{name} comes after {next_seq - 1}")
            next_seq = segment.last + 1
            announced += segment.announced
            if segment.prev is not None:
                if seal is not None and segment.prev != seal:
                    raise Violation("seals not chained", f"{when}: {stream}/{name}")
                seal = segment.header_sha256
            for who, (low, high) in segment.spans.items():
                sent = self.sent[who]
                before = last.get(who)
                if before is None:
                    if low > max(sent.following(0), sent.following(sent.trimmed)):
                        raise Violation(
                            "lost", f"{when}: {stream} has {sent.name} from {low} on only"
                        )
                elif low <= before:
                    raise Violation(
                        "twice or out of order",
                        f"{when}: {stream}/{name} has {sent.name} {low} after {before}",
                    )
                elif not sent.may_follow(before, low):
                    raise Violation(
                        "a hole", f"{when}: {stream}/{name} has {sent.name} {low} after {before}"
                    )
                last[who] = high
        kept.update(last)
        least = 0 if known.trims else self.dropped_and_told[stream]
        if not least <= announced <= self.dropped[stream]:
            raise Violation(
                "not announced",
                f"{when}: {stream} tells of {announced} dropped records; {self.dropped[stream]}"
                f" were, {least} of them before a stop",
            )
