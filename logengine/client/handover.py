"""Passes records from the application's threads to the client's own thread, without a lock.

The rule of the whole client: **no lock that an application's thread takes is ever held where
foreign code can run.** Foreign code runs between any two instructions and at any allocation:
signal handlers, the `__del__` of collected objects, other threads. If it logs, it reenters this
module. So one call into C hands a record over: it draws the record's place and appends the record,
and nothing can run between the two. Only the client's thread, which waits for no other thread,
deals with numbers on the wire, with chunks and with the daemon's answers.

The counters outside that call (`taken_bytes`, `taken_records`) may miss a record if two threads
count at the same time. They decide when memory is full and when to wake the client's thread, so an
error makes the bound slightly wider or a wake-up slightly later; `settle` corrects it.

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

Cell = list[Any]  # the line, then the place


class Handover:
    """The queue of records that the client's thread has not seen yet, and its counters.

    Call `take` if `has_room` allows it. A caller that reaches `wake_bytes` (in `taken_bytes`)
    wakes the client's thread; that thread sets `wake_bytes` before it checks the queue a last time
    and sleeps. `records_max` and `bytes_max` bound the memory here and in the outbox together.
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
        """The place of the last record taken; exact."""
        return _PLACES - length_hint(self._places)

    @property
    def dropped(self) -> int:
        """How many records were dropped for lack of room; exact."""
        return _PLACES - length_hint(self._drops)

    def has_room(self, size: int) -> bool:
        """Whether a line of `size` bytes may be taken; never after `close`."""
        return self.taken_bytes + size <= self.bytes_stop and self.taken_records < self.records_stop

    def take(self, line: bytes) -> Cell:
        """Appends a line. Returns its cell, which now contains its place too."""
        cell: Cell = [line]
        self.taken_bytes += len(line)
        # One call: `zip` draws the place, `iadd` writes it into the cell, and that is appended.
        self._extend(map(iadd, (cell,), self._with_place))
        self.taken_records = cell[1]
        return cell

    def withdraw(self, cell: Cell) -> bool:
        """Removes a cell that the client's thread has not seen; False if it has seen it."""
        try:
            self._cells.remove(cell)
        except ValueError:
            return False
        return True

    def drop(self) -> None:
        """Counts a record dropped for lack of room."""
        next(self._drops)

    # The rest is for the client's thread.

    def drain(self) -> list[bytes]:
        """Removes and returns all lines queued now, in the order of their places."""
        pop = self._cells.popleft
        lines: list[bytes] = []
        try:
            for _ in repeat(None, len(self._cells)):
                lines.append(pop()[0])  # noqa: PERF401 - keeps what was popped if `pop` raises
        except IndexError:
            pass  # another thread withdrew the last one
        self.drained_bytes += sum(map(len, lines))
        return lines

    def bound(self, held_bytes: int, released_records: int) -> None:
        """Sets the bounds: the bytes held in the outbox, and the place up to which it is free."""
        self.records_stop = released_records + self.records_max
        self.bytes_stop = self.drained_bytes - held_bytes + self.bytes_max
        if self.is_closed:
            self.bytes_stop = _CLOSED

    def sleep(self, held_bytes: int, wake_bytes: float) -> bool:
        """Requests a wake-up at `wake_bytes` held; returns whether to sleep until then."""
        at_once = wake_bytes <= 1
        self.wake_bytes = _AT_ONCE if at_once else self.drained_bytes - held_bytes + wake_bytes
        if self.is_closed:
            self.wake_bytes = _CLOSED
        if not self._cells:
            self.settle()
            return True
        return not at_once and self.taken_bytes < self.wake_bytes

    def settle(self) -> None:
        """Corrects the byte count while the queue is empty."""
        if not self._cells:
            self.taken_bytes = self.drained_bytes

    def wake(self) -> None:
        """Notes that the client's thread is being woken, so that no other call wakes it again."""
        self.wake_bytes = NEVER
        if self.is_closed:
            self.wake_bytes = _CLOSED

    def close(self) -> None:
        """Leaves no room. A caller that still takes a record wakes the client's thread."""
        self.is_closed = True
        self.bytes_stop = self.wake_bytes = _CLOSED
