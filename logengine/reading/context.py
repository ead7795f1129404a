"""Records around those that a filter chooses, as `grep -C` shows them. No I/O."""

from collections import deque
from collections.abc import Iterable, Iterator

from logengine.format.cursor import Cursor
from logengine.reading.batch import Batch
from logengine.reading.filter import Filter


def with_context(
    batches: Iterable[Batch],
    chosen: Filter,
    before: int,
    after: int,
    *,
    begin: Cursor | None = None,
    limit: int | None = None,
) -> Iterator[Batch | None]:
    """Yields the chosen records with up to `before` records before and `after` records after each.

    None stands between groups of records that are not adjacent. `batches` are all records. With
    `begin`, no record before that one counts as chosen. With `limit`, only so many do, and nothing
    is read after the last one's context. Keeps at most `before` records in memory.
    """
    window = Window(chosen, before, after, limit)
    window.begin_at(begin)
    for batch in batches:
        yield from window.groups(batch)
        if window.is_complete:
            return


class Window:
    """What is shown of one batch after the other. Records are counted over all batches."""

    def __init__(self, chosen: Filter, before: int, after: int, limit: int | None = None) -> None:
        self.before = before
        self._chosen = chosen
        self._after = after
        self._begin: Cursor | None = None  # None from there on
        self._remaining = limit
        self._start = 0  # of the batch
        self._shown_stop: int | None = None  # where the last group ends
        self._owed_stop = 0  # up to here, records are the context of one before
        # The last `before` records, of those that are not shown, and where each part starts.
        self._held: deque[tuple[int, Batch]] = deque()

    def begin_at(self, begin: Cursor | None) -> None:
        """Lets no record before this one count as chosen."""
        self._begin = begin

    def pass_over(self, batch: Batch) -> None:
        """Takes records of which none counts as chosen; they may be before one that is."""
        stop = self._start + len(batch)
        self._hold(batch, stop)
        self._start = stop

    @property
    def is_complete(self) -> bool:
        """Whether the limit is reached, and the context after the last record is shown."""
        return self._remaining == 0 and self._owed_stop <= self._start

    def groups(self, batch: Batch) -> Iterator[Batch | None]:
        """Yields what is shown now that this batch is known."""
        stop = self._start + len(batch)
        for low, high in self._ranges(batch, stop):
            if self._shown_stop is not None and low > self._shown_stop:
                yield None
            for start, part in self._held:
                if start + len(part) > low:
                    yield part.part(max(0, low - start), len(part))
            self._held.clear()
            yield batch.part(max(low, self._start) - self._start, high - self._start)
            self._shown_stop = high
        self._hold(batch, stop)
        self._start = stop

    def _ranges(self, batch: Batch, stop: int) -> list[tuple[int, int]]:
        """Returns the ranges to show of this batch and of what is held; no two are adjacent."""
        start = self._start
        ranges = [(start, min(stop, self._owed_stop))] if self._owed_stop > start else []
        for first, last in self._matches(batch):
            self._owed_stop = start + last + self._after
            low = max(self._shown_stop or 0, start + first - self.before)
            if ranges and low <= ranges[-1][1]:
                low, _ = ranges.pop()
            ranges.append((low, min(stop, self._owed_stop)))
        return ranges

    def _matches(self, batch: Batch) -> Iterator[tuple[int, int]]:
        """Yields the ranges of the batch that are chosen, from `begin` on and up to the limit."""
        begin = 0
        if self._begin is not None:
            found = batch.place_of(self._begin)
            if found is None:
                return
            self._begin, begin = None, found
        for start, stop in batch.chosen(self._chosen):
            first = max(start, begin)
            last = stop if self._remaining is None else min(stop, first + self._remaining)
            if first < last:
                yield first, last
                if self._remaining is not None:
                    self._remaining -= last - first

    def _hold(self, batch: Batch, stop: int) -> None:
        """Keeps the last records that are not shown, which may be before one that is chosen."""
        oldest = stop - self.before
        unshown = max(self._start, oldest, self._shown_stop or 0)
        if unshown < stop:
            self._held.append((unshown, batch.part(unshown - self._start, len(batch))))
        while self._held and self._held[0][0] + len(self._held[0][1]) <= oldest:
            self._held.popleft()
