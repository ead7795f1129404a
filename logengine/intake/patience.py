"""Guesses whether a sender waits for each answer before it goes on.

Such a sender is committed for at once. Nobody waits for a sender that writes at its own pace, and
its records can share a commit with later ones. A client that asks for commits itself needs no
guess.

A sender that waits has nothing outstanding when it writes, and it writes as soon as it has its
answer. Each one is taken for such a sender until it does otherwise. One that writes at its own pace
looks like one now and then, by chance: after it did otherwise, only several times in a row are a
sign. One that always waited may be late once: on a busy machine, anybody is.

On a busy machine or a slow disk, a sender that waits comes back later, and a commit takes longer as
well. A sender with a pace of its own that writes more often than commits take has something
outstanding then. How long the daemon takes to read a record is not the sender's time.
"""

_SOON_S = 0.002
_SOON_MAX_S = 0.01
_TIMES_IN_A_ROW = 8
_ALWAYS = 2 * _TIMES_IN_A_ROW


class Patience:
    """What one sender has shown so far. Times are in seconds.

    They are by a clock that stands still while the daemon reads what others sent.
    """

    __slots__ = ("_answered_at_s", "_in_a_row")

    def __init__(self) -> None:
        self._answered_at_s: float | None = None
        self._in_a_row = _TIMES_IN_A_ROW

    def answered(self, now_s: float) -> None:
        """The sender was told that records are durable."""
        self._answered_at_s = now_s

    def waits(self, now_s: float, *, is_outstanding: bool, commit_s: float) -> bool:
        """Returns whether the sender waits for what it wrote now.

        `is_outstanding` says whether earlier records of it are not durable yet, `commit_s` how long
        the last commit took.
        """
        answered_at_s, self._answered_at_s = self._answered_at_s, None
        if is_outstanding:
            self._in_a_row = 0
        elif answered_at_s is not None:
            soon_s = max(_SOON_S, min(commit_s, _SOON_MAX_S))
            if now_s - answered_at_s <= soon_s:
                self._in_a_row = min(self._in_a_row + 1, _ALWAYS)
            else:
                self._in_a_row = _TIMES_IN_A_ROW if self._in_a_row == _ALWAYS else 0
        return self._in_a_row >= _TIMES_IN_A_ROW
