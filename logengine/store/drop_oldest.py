"""Which segments to remove from a stream on a full disk: pure decisions.

A stream whose disk is full may drop its oldest segments (`on_full = "drop_oldest"`). Only whole
segments are dropped; the rest stays as continuous as it was.
"""

from collections.abc import Iterable

import msgspec


class StoredSegment(msgspec.Struct, frozen=True):
    """A segment on disk, where it uses `disk_bytes`."""

    first: int
    count: int
    disk_bytes: int

    @property
    def last(self) -> int:
        """Sequence number of the last record; `first - 1` if there is none."""
        return self.first + self.count - 1


def oldest_to_drop(
    segments: Iterable[StoredSegment], wanted_bytes: int, next_seq: int
) -> list[StoredSegment]:
    """The segments to remove to free `wanted_bytes` or somewhat more, in order of removal.

    `segments` are in name order and are read no further than needed. A segment is removed only if
    a later one begins before `next_seq`, where the durable records end. So the last durable
    segment stays, with the stream's numbers and producers, even if later ones vanish. A segment
    that a merge left covered is removed before the covering one; otherwise its records would
    reappear.
    """
    dropped: list[StoredSegment] = []
    freed_bytes = 0
    group: list[StoredSegment] = []  # a segment and those that it covers
    for segment in segments:
        if group and segment.last <= group[0].last and segment.count:
            group.append(segment)
            continue
        if group:
            if segment.first >= next_seq:
                break
            dropped += reversed(group)
            freed_bytes += sum(each.disk_bytes for each in group)
            if freed_bytes >= wanted_bytes:
                break
        group = [segment]
    return dropped
