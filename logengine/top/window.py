"""The records on the screen: which ones are kept, which one is selected, and what waits. No I/O.

While the newest record is selected and nothing is paused, new records come in and the selection
moves along. Otherwise nothing moves: new records wait, and are counted.
"""

from collections.abc import Iterable, Sequence

from logengine.format.block import Record

# In memory, and as much again that waits.
KEPT_MAX = 5000
KEPT_BYTES_MAX = 32 * 1024 * 1024


class RecordWindow:
    """Some adjacent records, in order. `cursor` is the index of the selected one.

    `is_joined`: the last record is the newest but for those that wait.
    """

    def __init__(self, kept_max: int = KEPT_MAX, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self.records: list[Record] = []
        self.cursor = 0
        self.first_shown = 0
        self.height = 1
        self.is_paused = False
        self.is_joined = True
        self.new = 0
        self._waiting: list[Record] = []
        self._kept_max = kept_max
        self._bytes_max = bytes_max

    @property
    def selected(self) -> Record | None:
        """The selected record; None if there is none."""
        return self.records[self.cursor] if self.records else None

    @property
    def is_live(self) -> bool:
        """Whether new records come in as they arrive."""
        return self.is_joined and not self.is_paused and self.cursor >= len(self.records) - 1

    def arrive(self, records: Sequence[Record], count: int) -> None:
        """Takes `count` new records, of which `records` are the last ones."""
        if not self.is_live or self.new:
            self.new += count
            waiting = [*self._waiting, *records]
            self._waiting = waiting[len(waiting) - self._kept(reversed(waiting)) :]
            return
        if count > len(records):
            self.records = []  # what is left out would be a hole
        self._append(records)

    def take_new(self) -> bool:
        """Moves what waits into the window and selects the newest; ends a pause.

        Returns whether that is the end of the stream; otherwise it must be read again.
        """
        self.is_paused = False
        if not self.is_joined:
            return False
        if self.new > len(self._waiting):
            self.records = []
        waiting, self._waiting, self.new = self._waiting, [], 0
        self._append(waiting)
        return True

    def replace(self, records: Sequence[Record], *, cursor: int, is_joined: bool) -> None:
        """Shows other records. What waits is forgotten if they are joined to the newest."""
        self.records = list(records)
        self.is_joined = is_joined
        self.is_paused = False
        if is_joined:
            self._waiting, self.new = [], 0
        self.cursor = 0
        self.first_shown = 0
        self.select(cursor)

    def prepend(self, records: Sequence[Record]) -> None:
        """Adds the records before the first. Of too many, the last are forgotten."""
        self.records = [*records, *self.records]
        self.cursor += len(records)
        self.first_shown += len(records)
        # The selected record is among those that are kept, however large the others are.
        kept = max(self._kept(self.records), self.cursor + 1)
        if kept < len(self.records):
            del self.records[kept:]
            self.is_joined = False
        self._scroll()

    def extend(self, records: Sequence[Record]) -> None:
        """Adds the records after the last, which is not joined to the newest."""
        self.records += records
        self._cut_front()
        self._scroll()

    def select(self, index: int) -> None:
        """Selects a record, and scrolls to it."""
        self.cursor = max(0, min(index, len(self.records) - 1))
        self._scroll()

    def show_around(self) -> None:
        """Scrolls so that there are records above the selected one, and more below."""
        self.first_shown = max(0, self.cursor - self.height // 3)
        self._scroll()

    def resize(self, height: int) -> None:
        """Adapts to the rows of the screen."""
        self.height = max(1, height)
        self._scroll()

    def shown(self) -> Sequence[Record]:
        """Returns the records on the screen."""
        return self.records[self.first_shown : self.first_shown + self.height]

    def _append(self, records: Sequence[Record]) -> None:
        self.records += records
        self._cut_front()
        self.select(len(self.records) - 1)

    def _cut_front(self) -> None:
        if (excess := len(self.records) - self._kept(reversed(self.records))) > 0:
            del self.records[:excess]
            self.cursor = max(0, self.cursor - excess)
            self.first_shown = max(0, self.first_shown - excess)

    def _kept(self, records: Iterable[Record]) -> int:
        """Returns how many of the records are kept, counted from the first: at least one."""
        count = used = 0
        for record in records:
            used += len(record.line)
            if count == self._kept_max or (used > self._bytes_max and count):
                break
            count += 1
        return count

    def _scroll(self) -> None:
        lowest = max(0, self.cursor - self.height + 1)
        greatest = min(self.cursor, max(0, len(self.records) - self.height))
        self.first_shown = max(lowest, min(self.first_shown, greatest))
