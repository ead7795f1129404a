"""The numbers of a connection whose records go to several streams, which commit in any order."""

from collections import deque
from collections.abc import Callable


class Outstanding:
    """What a connection sent up to a number: the sender of `entries` entries, each in a stream."""

    __slots__ = ("_in_order", "entries", "number", "uid")

    def __init__(self, in_order: "InOrder", uid: int, number: int) -> None:
        self._in_order = in_order
        self.uid = uid
        self.number = number
        self.entries = 0

    def durable(self, number: int) -> None:
        """One of its entries is on disk."""
        self.entries -= 1
        self._in_order.look()


class InOrder:
    """Calls `on_durable` with a number once all entries up to it are durable.

    Memory: O(entries that are not durable).
    """

    def __init__(self, uid: int, on_durable: Callable[[int], None]) -> None:
        self._uid = uid
        self._on_durable = on_durable
        self._outstanding: deque[Outstanding] = deque()

    def expect(self, number: int) -> Outstanding:
        """Returns the sender for the entries up to `number`, which the caller counts.

        Add one entry at least before the event loop goes on.
        """
        outstanding = Outstanding(self, self._uid, number)
        self._outstanding.append(outstanding)
        return outstanding

    def look(self) -> None:
        """Reports what has become durable up to a higher number."""
        number = 0
        while self._outstanding and not self._outstanding[0].entries:
            number = self._outstanding.popleft().number
        if number:
            self._on_durable(number)
