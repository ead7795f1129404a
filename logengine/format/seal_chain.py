"""Checks the chain of a stream's sealed segments: whether its links agree with each other.

`docs/format.md` says what the chain can reveal and what it cannot. Headers in, findings out.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec import UNSET

from logengine.format.segment import (
    Frame,
    Header,
    IndexEntry,
    Restored,
    hash_for_successor,
    original_of,
    signed_part,
)

# Returns whether a signature, in hexadecimal, is that of the given bytes.
IsSigned = Callable[[bytes, str], bool]


class Remark(NamedTuple):
    """A finding about the chain. A note says what the chain cannot prove; it is not damage."""

    what: str
    is_note: bool = False


def has_records_of(header: Header, original: Header) -> bool:
    """Returns whether a segment has all records of `original`, or some of its frames unchanged."""
    ours, theirs = list(_frames_of(header)), list(_frames_of(original))
    place = next((at for at, each in enumerate(theirs) if each[0] == header.first), len(theirs))
    if ours and ours == theirs[place : place + len(ours)]:
        return True
    return (header.first, header.count, header.bytes, header.sha256) == (
        original.first,
        original.count,
        original.bytes,
        original.sha256,
    )


def _frames_of(header: Header) -> Iterator[tuple[int, Frame, IndexEntry]]:
    """Yields each frame's first sequence number and the header's entries for it."""
    if header.frames is UNSET or header.index is UNSET:
        return
    first = header.first
    for frame, entry in zip(header.frames, header.index, strict=True):
        yield first, frame, entry
        first += frame.count


class SealChain:
    """Takes a stream's segments in order and reports where the chain does not hold.

    `anchor` is a hash that must be in the chain. With `is_signed`, every seal must be signed. With
    either, what they do not prove is a fault and not a note, except the records that are not sealed
    yet. `allows_erased` permits seals that lost their signature because records were erased, and
    `allows_gaps` permits recorded gaps.
    """

    def __init__(
        self,
        anchor: str | None = None,
        is_signed: IsSigned | None = None,
        *,
        allows_erased: bool = False,
        allows_gaps: bool = False,
    ) -> None:
        self._anchor = anchor
        self._is_signed = is_signed
        self._must_prove = anchor is not None or is_signed is not None
        self._allows_erased = allows_erased
        self._allows_gaps = allows_gaps
        self._first = 0  # the first number of the stream, 0 before any segment
        self._last = 0
        self._anchored_to = 0
        # The last number of the seal that the restored segment before this one was made from.
        self._restored_to = 0
        self._is_anchored = False
        self._is_unbroken = False  # whether the segment before this one is known
        self._is_unknown = False  # whether that one was restored, and from no known seal
        self._gap: int | None = None  # `first` of the recorded gap after the last sealed segment
        self._seals: list[tuple[int, str]] = []  # `first` and `since` of each
        # The first of the unsealed segments after the last sealed one.
        self.unsealed: int | None = None
        self.newest_hash: str | None = None
        self.sealed_to = 0
        # How many seals lost their signature because records were erased; counted if `is_signed`.
        self.signed_no_more = 0

    def take(self, header: Header, line: bytes) -> Iterator[Remark]:
        """Yields the findings about the next segment; `line` is the line of its header."""
        self._first = self._first or header.first
        self._last = max(self._last, header.last)
        if header.prev is UNSET:
            if header.gap is not UNSET:
                self._gap = header.first
                if self._must_prove and not self._allows_gaps:
                    yield Remark(
                        "no seal proves this gap: anyone who can write here could have made it"
                    )
            else:
                yield from self._check_restored_to(header.first)
            if header.count and self.unsealed is None:
                self.unsealed = header.first
            return
        if self.unsealed is not None:
            yield Remark(f"it is sealed, but segment {self.unsealed} before it is not")
            self.unsealed = None
        link, link_line = original_of(header) or (header, line)
        hash_of_link = hash_for_successor(header, line)
        is_more_of_it = link is not header and hash_of_link == self.newest_hash
        if not is_more_of_it:
            yield from self._check_restored_to(header.first)
            yield from self._check_link(header, link.prev or "")
        self._restored_to = link.last if link is not header else 0
        self._gap = None
        self.newest_hash = hash_of_link
        self.sealed_to = header.last
        self._is_unbroken = True
        if self._anchor in (link.prev, self.newest_hash):
            self._is_anchored = True
            is_this = self._anchor == self.newest_hash
            self._anchored_to = header.last if is_this else max(self._anchored_to, header.first - 1)
        if header.restored is not UNSET:
            yield from self._check_restored(header, header.restored, link)
        self._is_unknown = header.restored is not UNSET and link is header
        if link is header or header.erased is not UNSET:
            yield from self._check_origin(header, line)
        else:
            yield from self._check_origin(link, link_line)
        yield from self._check_earlier(header)

    def _check_link(self, header: Header, prev: str) -> Iterator[Remark]:
        is_restored = header.restored is not UNSET
        if header.first == 1 and prev:
            yield Remark(
                f"it names a seal before it, {prev}, but is the first of its stream",
                is_note=is_restored and not self._must_prove,
            )
        if not self._is_unbroken or prev == self.newest_hash:
            return
        if self._gap is None and not is_restored and not self._is_unknown:
            yield Remark(
                f"it names {prev or 'no seal'} as the seal before it, but that is "
                f"{self.newest_hash}: it was changed, or a seal between them was removed"
            )
            return
        where = "" if self._gap is None else f", after the gap at {self._gap}"
        yield Remark(
            f"the chain of seals begins again here{where}: the seal that it names, "
            f"{prev or 'none'}, is not there; nothing before it is proven",
            is_note=not self._must_prove or (self._gap is not None and self._allows_gaps),
        )

    def _check_restored(self, header: Header, restored: Restored, link: Header) -> Iterator[Remark]:
        is_proven = link is not header and has_records_of(header, link)
        proof = "its records are those of a seal" if is_proven else "no seal proves its records"
        yield Remark(f"restored at {restored.when}, {restored.why}: {proof}", is_note=True)
        # If records were erased since, that is reported instead.
        if self._must_prove and not is_proven and header.erased is UNSET:
            proof = "seal" if self._is_signed is None else "signature"
            yield Remark(f"no {proof} proves its records")

    def _check_restored_to(self, first: int) -> Iterator[Remark]:
        """Checks that what a restored segment lacks of its seal is accounted for before `first`."""
        if self._must_prove and first <= self._restored_to:
            yield Remark(
                f"records {first} to {self._restored_to} are not those that were sealed, and no "
                "gap says so"
            )
        self._restored_to = 0

    def _check_origin(self, header: Header, line: bytes) -> Iterator[Remark]:
        is_signed = self._is_signed
        if header.erased is not UNSET:
            count = f"{header.erased.count} of its records were erased since it was sealed"
            if is_signed is None or header.signature is UNSET:
                signed_no_more = "" if is_signed is None else "it is no longer signed, and "
                proof = f"{signed_no_more}nothing proves what is left of it"
            else:
                proof = "what is left was signed again"
            is_proven = is_signed is not None and header.signature is not UNSET
            is_allowed = is_proven or self._allows_erased or not self._must_prove
            yield Remark(f"{count}: {proof}", is_note=is_allowed)
            if is_signed is not None and header.signature is UNSET:
                self.signed_no_more += 1
                return
        if is_signed is None:
            return
        if header.signature is UNSET:
            yield Remark("its seal is not signed")
        elif not is_signed(signed_part(line), header.signature):
            yield Remark("its seal was not signed with this key")

    def _check_earlier(self, header: Header) -> Iterator[Remark]:
        """Compares what the header says about earlier seals with those that exist."""
        earlier = header.earlier
        if earlier is not UNSET:
            start = bisect_left(self._seals, (earlier.first, ""))
            since = min((since for _, since in self._seals[start:]), default=earlier.since)
            if since < earlier.since:
                yield Remark(
                    f"it says that no record from {earlier.first} on is older than "
                    f"{earlier.since}, but there is one from {since}"
                )
        self._seals.append((header.first, header.since))

    def look_again(self) -> None:
        """Forgets the last segment: the next one does not follow it (damaged, or outdated)."""
        self._is_unbroken = False
        self._gap = None
        self.unsealed = None

    def end(self) -> Iterator[Remark]:
        """Yields what is wrong with the chain as a whole, after the last segment."""
        if self._anchor is not None and not self._is_anchored:
            yield Remark(
                f"no seal has the hash {self._anchor}: it was changed, or the stream was cut off"
            )
        if not self._must_prove:
            return
        yield from self._check_restored_to(self._last + 1)
        if self._is_signed is not None and self.newest_hash is None:
            yield Remark("it has no seal, so no signature proves any of its records")
            return
        yield from self._ends()

    def _ends(self) -> Iterator[Remark]:
        """Yields notes about the numbers before and after those that are proven."""
        if self._first > 1:
            yield Remark(
                f"records 1 to {self._first - 1} are not kept; nothing proves who removed them",
                is_note=True,
            )
        proof, proven_to = "newest seal, and not signed", self.sealed_to
        if self._is_signed is None:
            proof, proven_to = f"seal {self._anchor}, which does not prove them", self._anchored_to
        if 0 < proven_to < self._last:
            yield Remark(
                f"records {proven_to + 1} to {self._last} are after the {proof}", is_note=True
            )
