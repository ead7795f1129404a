"""How records come from the application's threads to the client's own: without a lock.

The rule of the whole client: **no lock that an application's thread takes is ever held where
foreign code can run.** Foreign code runs between any two instructions and at any allocation:
signal handlers, the `__del__` of what a collection finds, other threads. If it logs, it comes
here again, from within. So a record is handed over by one call into C, which draws its place
and appends it; nothing can come between the two. Numbering on the wire, chunks and all that
the daemon says are the business of the client's thread alone, which waits for nobody.

What is counted beside that call (`taken_bytes`, `taken_records`) may miss a record where two
threads count at once. It decides when memory is full and when to wake, so an error makes the
bound a little wider or a wake-up a little later; `settle` puts it right.

No I/O and no clock.
"""

from collections import deque
from itertools import repeat
from operator import iadd, length_hint
from typing import Any

NEVER = float("inf")
_AT_ONCE = 0
_CLOSED = -1
_PLACES = 2**62

Cell = list[Any]  # the line, and behind it the place


class Handover:
    """What was taken, and what the client's thread has not seen yet.

    A record is put in by `take` if `has_room` says so. `wake_bytes`: from how many
    `taken_bytes` on whoever has put one in wakes the client's thread; it is set before that
    thread looks a last time and sleeps. `records_max` and `bytes_max` bound what is in memory,
    here and behind it.
    """

    __slots__ = (
        "_cells",
        "_drops",
        "_extend",
        "_places",
        "_with_place",
        "bytes_max",
        "bytes_stop",
        "drained_bytes",
        "is_closed",
        "records_max",
        "records_stop",
        "taken_bytes",
        "taken_records",
        "wake_bytes",
    )

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self.records_max = records_max
        self.bytes_max = bytes_max
        self._places = iter(range(1, _PLACES + 1))
        self._with_place = zip(self._places, strict=False)
        self._cells: deque[Cell] = deque()
        self._extend = self._cells.extend
        self._drops = repeat(None, _PLACES)
        self.taken_bytes = 0
        self.taken_records = 0
        self.drained_bytes = 0
        self.bytes_stop = bytes_max
        self.records_stop = records_max
        self.wake_bytes: float = _AT_ONCE
        self.is_closed = False

    def __len__(self) -> int:
        """How many records the client's thread has not seen yet."""
        return len(self._cells)

    @property
    def taken(self) -> int:
        """The place of the last record that was put in; exact."""
        return _PLACES - length_hint(self._places)

    @property
    def dropped(self) -> int:
        """How many records there was no room for; exact."""
        return _PLACES - length_hint(self._drops)

    def has_room(self, size: int) -> bool:
        """Whether a line of `size` bytes may be put in; never, once it is closed."""
        return self.taken_bytes + size <= self.bytes_stop and self.taken_records < self.records_stop

    def take(self, line: bytes) -> Cell:
        """Puts a line in, and gives it with its place behind it."""
        cell: Cell = [line]
        self.taken_bytes += len(line)
        # One call: `zip` draws the place, `iadd` writes it into the cell, and that is appended.
        self._extend(map(iadd, (cell,), self._with_place))
        self.taken_records = cell[1]
        return cell

    def withdraw(self, cell: Cell) -> bool:
        """Takes back what the client's thread has not seen; False if it has."""
        try:
            self._cells.remove(cell)
        except ValueError:
            return False
        return True

    def drop(self) -> None:
        """Counts a record for which there was no room."""
        next(self._drops)

    # What follows is for the client's thread.

    def drain(self) -> list[bytes]:
        """All lines that are there now, in the order of their places."""
        pop = self._cells.popleft
        lines: list[bytes] = []
        try:
            for _ in repeat(None, len(self._cells)):
                lines.append(pop()[0])  # noqa: PERF401 - what was taken out may not be lost
        except IndexError:
            pass  # somebody took the last one back
        self.drained_bytes += sum(map(len, lines))
        return lines

    def bound(self, held_bytes: int, released_records: int) -> None:
        """Says what is held behind this, and up to which place nothing is held any more."""
        self.records_stop = released_records + self.records_max
        self.bytes_stop = self.drained_bytes - held_bytes + self.bytes_max
        if self.is_closed:
            self.bytes_stop = _CLOSED

    def sleep(self, held_bytes: int, wake_bytes: float) -> bool:
        """Asks to be woken when `wake_bytes` are held; whether it may sleep until then."""
        at_once = wake_bytes <= 1
        self.wake_bytes = _AT_ONCE if at_once else self.drained_bytes - held_bytes + wake_bytes
        if self.is_closed:
            self.wake_bytes = _CLOSED
        if not self._cells:
            self.settle()
            return True
        return not at_once and self.taken_bytes < self.wake_bytes

    def settle(self) -> None:
        """Puts right what was miscounted, where nothing is under way."""
        if not self._cells:
            self.taken_bytes = self.drained_bytes

    def wake(self) -> None:
        """The client's thread is being woken: once is enough."""
        self.wake_bytes = NEVER
        if self.is_closed:
            self.wake_bytes = _CLOSED

    def close(self) -> None:
        """Nothing more has room; who puts something in all the same calls the client's thread."""
        self.is_closed = True
        self.bytes_stop = self.wake_bytes = _CLOSED
