"""How many records there are of each level over time, as a page's histogram shows them.

Most frames of sealed segments are within one bar. They are counted by their headers; the levels in
them are remembered once they were read.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable

from logengine.aggregation.counting import Counting, parse_by, rank_in
from logengine.aggregation.time_buckets import TimeBuckets
from logengine.format.block import Block
from logengine.reading import SealedFrame

# The ranks of records without a level, and of those that are not read yet.
NO_LEVEL, UNREAD = -1, -2
# Of 1 MiB of records each, so this is enough for 16 GiB.
_FRAMES_REMEMBERED_MAX = 16_384
_COUNTS_REMEMBERED_MAX = 64  # of a frame
_LEVEL = parse_by(["level"])

# The start of a bar, the rank of a level, and how many records there are.
Count = tuple[str, int, int]
Counts = tuple[Count, ...]


class RememberedLevels:
    """The counts of frames, by the length of the bars. Any thread may use it.

    What a sealed segment contains never changes, and another one has another hash.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[tuple[object, ...], Counts] = OrderedDict()

    def get(self, frame: SealedFrame, every_s: float) -> Counts | None:
        """Returns the counts of a frame if they are remembered."""
        key = _key(frame, every_s)
        with self._lock:
            if (counts := self._counts.get(key)) is not None:
                self._counts.move_to_end(key)
            return counts

    def add(self, frame: SealedFrame, every_s: float, counts: Counts) -> None:
        """Remembers the counts of a frame, and forgets those that were not asked for longest."""
        if len(counts) > _COUNTS_REMEMBERED_MAX:
            return
        with self._lock:
            self._counts[_key(frame, every_s)] = counts
            while len(self._counts) > _FRAMES_REMEMBERED_MAX:
                self._counts.popitem(last=False)


class LevelCounts:
    """Counts records by `buckets` of `every_s` and by level.

    With `may_count_unread`, frames in one bucket whose levels are not remembered need not be read:
    their records have the level `UNREAD`.
    """

    def __init__(
        self,
        buckets: TimeBuckets,
        every_s: float,
        remembered: RememberedLevels,
        *,
        may_count_unread: bool = False,
    ) -> None:
        self._buckets = buckets
        self._every_s = every_s
        self._remembered = remembered
        self._may_count_unread = may_count_unread
        self._counts: Counter[tuple[str, int]] = Counter()
        self._read_next: SealedFrame | None = None

    def passes(self, frame: SealedFrame) -> bool:
        """Counts a frame without reading it, and returns whether that was possible."""
        if (counts := self._remembered.get(frame, self._every_s)) is not None:
            self._add(counts)
            return True
        part = self._buckets.part_of_timestamp
        start, end = (
            self._buckets.start(time[part].encode()) for time in (frame.since, frame.until)
        )
        if self._may_count_unread and start == end:
            self._add([(start, UNREAD, frame.count)])
            return True
        self._read_next = frame
        return False

    def add(self, block: Block) -> None:
        """Counts the records of a block."""
        counting = Counting(_LEVEL, self._buckets)
        counting.add(block)
        counts = tuple(
            (group.start or "", NO_LEVEL if rank is None else rank, group.count)
            for group in counting.groups()
            for rank in [None if group.values is None else rank_in(group.values[0])]
        )
        self._add(counts)
        frame, self._read_next = self._read_next, None
        if frame is not None and (frame.first, frame.count) == (block.first, block.count):
            self._remembered.add(frame, self._every_s, counts)

    def counts(self) -> list[Count]:
        """Returns what was counted, the earliest first."""
        return [(start, rank, count) for (start, rank), count in sorted(self._counts.items())]

    def _add(self, counts: Iterable[Count]) -> None:
        for start, rank, count in counts:
            self._counts[start, rank] += count


def _key(frame: SealedFrame, every_s: float) -> tuple[object, ...]:
    return frame.segment, frame.first, frame.count, every_s
