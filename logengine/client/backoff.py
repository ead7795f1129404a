"""How long to wait before reconnecting to a daemon. No I/O, no clock."""

from collections.abc import Callable

MIN_S = 0.02
MAX_S = 2.0


class Backoff:
    """A pause that grows with each failed attempt and differs between clients.

    `chance` returns a number from 0 to 1; without it a thousand clients would reconnect to a
    restarted daemon at the same moment.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._next_s = MIN_S

    def take(self) -> float:
        """Returns the seconds to wait now, with jitter; the next base is doubled, up to `MAX_S`."""
        pause_s = self._next_s * (0.5 + self._chance() / 2)
        self._next_s = min(2 * self._next_s, MAX_S)
        return pause_s

    def reset(self) -> None:
        """Starts at `MIN_S` again, after the daemon was reached."""
        self._next_s = MIN_S
