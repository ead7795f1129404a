"""How long to wait before trying again to reach a daemon that is away. No I/O, no clock."""

from collections.abc import Callable

MIN_S = 0.02
MAX_S = 2.0


class Backoff:
    """Grows with each attempt that failed, and differs from client to client.

    `chance` gives a number from 0 to 1; without it a thousand clients would come back to a
    daemon that was restarted all at once.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._next_s = MIN_S

    def take(self) -> float:
        """Seconds to wait now; the next one is twice as long, up to `MAX_S`, less some chance."""
        pause_s = self._next_s * (0.5 + self._chance() / 2)
        self._next_s = min(2 * self._next_s, MAX_S)
        return pause_s

    def reset(self) -> None:
        """The daemon was there: begins with `MIN_S` again."""
        self._next_s = MIN_S
