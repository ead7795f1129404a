"""New records for one page, by a thread that follows and a queue that never grows too long.

If a page does not take records as fast as they come, the oldest that wait are dropped. It learns
how many, and from which place to read them.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from logengine.format.block import Record
from logengine.reading import Filter, Following, Problem, Report

_WAITING_RECORDS_MAX = 2000
_WAITING_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Arrived:
    """What arrived: `dropped` records from `dropped_from` on, and then `items`."""

    items: list[Record | Problem]
    dropped: int
    dropped_from: dict[str, int]


class LiveFeed:
    """Follows in a thread, from `start` to `stop`. `on_change` is called in that thread.

    `follow` is called once, with what it is to report problems to. All of what it returns is
    followed, so that it is known where to go on; `chosen` is what the page gets.
    """

    def __init__(
        self,
        follow: Callable[[Report], Following],
        chosen: Filter,
        on_change: Callable[[], None],
    ) -> None:
        self.error: Exception | None = None
        self.is_ended = False
        self._chosen = chosen
        self._on_change = on_change
        self._lock = threading.Lock()
        self._items: deque[Record | Problem] = deque()
        self._bytes = 0
        self._dropped = 0
        self._dropped_from: dict[str, int] = {}
        self._following = follow(self._add_problem)

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._run, name="live", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread soon."""
        self._following.stop()

    def take(self, most: int) -> Arrived:
        """Returns what arrived since the last call, up to so many records."""
        with self._lock:
            items = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(map(_size, items))
            arrived = Arrived(items, self._dropped, self._dropped_from)
            self._dropped, self._dropped_from = 0, {}
        return arrived

    @property
    def has_more(self) -> bool:
        """Whether something waits to be taken."""
        return bool(self._items) or bool(self._dropped)

    def _add_problem(self, problem: Problem) -> None:
        self._add(problem)
        self._on_change()

    def _run(self) -> None:
        try:
            for batch in self._following.batches():
                is_changed = False
                for start, stop in batch.chosen(self._chosen):
                    for record in batch.part(start, stop):
                        self._add(record)
                        is_changed = True
                if is_changed:
                    self._on_change()
        except Exception as error:  # noqa: BLE001 - the page is shown it
            self.error = error
        self.is_ended = True
        self._on_change()

    def _add(self, item: Record | Problem) -> None:
        with self._lock:
            self._items.append(item)
            self._bytes += _size(item)
            while self._bytes > _WAITING_BYTES_MAX or len(self._items) > _WAITING_RECORDS_MAX:
                oldest = self._items.popleft()
                self._bytes -= _size(oldest)
                self._dropped += 1
                if isinstance(oldest, Record):
                    self._dropped_from.setdefault(oldest.stream, oldest.seq)


def _size(item: Record | Problem) -> int:
    return len(item.line) if isinstance(item, Record) else len(item.what)
