"""Whether the segments that a backup has taken belong together: pure decisions."""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET

from logengine.format.segment import Header


class Fault(msgspec.Struct, frozen=True):
    """Why segments do not belong together, and between which numbers."""

    first: int
    last: int
    what: str

    def __str__(self) -> str:
        return f"records {self.first} to {self.last} {self.what}"


def fault_of(headers: Iterable[Header], end: int) -> Fault | None:
    """Returns the first fault of segments in name order; None if they belong together.

    They do if no record is missing from the first one up to `end`, the last that was there when
    the backup began, and if no unsealed segment with records is before a sealed one. Files that are
    taken one after the other, while others merge and seal them, need not belong together.
    """
    before: Header | None = None
    unsealed: Header | None = None
    for header in headers:
        if before is not None:
            if before.first < header.first and header.last <= before.last:
                continue  # covered by that one
            if header.first != before.last + 1:
                what = "are missing" if header.first > before.last else "are in two segments"
                first, last = sorted((before.last + 1, header.first))
                return Fault(first, last - 1, what)
        if header.is_sealed and unsealed is not None:
            return Fault(unsealed.first, unsealed.last, "are not sealed, but later ones are")
        if not header.is_sealed and header.gap is UNSET and header.count:
            unsealed = unsealed or header
        before = header
    last = before.last if before is not None else 0
    return Fault(last + 1, end, "are missing") if last < end else None
