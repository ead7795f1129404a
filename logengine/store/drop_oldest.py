"""Which segments go when a stream is to make room: pure decisions.

A stream whose disk is full may drop its oldest segments (`on_full = "drop_oldest"`). Whole
segments only, so that what is left is as continuous as it was.
"""

from collections.abc import Iterable

import msgspec


class StoredSegment(msgspec.Struct, frozen=True):
    """A segment as it lies on the disk, of which it takes `disk_bytes`."""

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
    """The segments to remove, in the order to do it, for `wanted_bytes` of room or somewhat more.

    `segments` are in the order of their names, and are looked at no further than needed. None
    is removed unless a segment behind it begins before `next_seq`, where the durable records
    end: so the last durable segment stays, and with it the numbers and producers of the stream,
    although what is behind it may vanish. One that a merge left covered goes before the one
    that covers it, or its records would come back.
    """
    dropped: list[StoredSegment] = []
    freed_bytes = 0
    group: list[StoredSegment] = []  # a segment, and those that it covers
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
