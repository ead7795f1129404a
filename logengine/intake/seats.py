"""Who is connected, and which connection is ended when another user has a better right to it."""

from itertools import chain, islice
from typing import Protocol

from logengine.intake.shares import Shares

_LOOKED_AT_MAX = 64  # with a system call for each


class Occupant(Protocol):
    """A connection."""

    @property
    def has_unread(self) -> bool:
        """Whether it has sent something that is not read yet, and is lost if it gives way."""

    def give_way(self) -> None:
        """Ends it, because another user has a better right to its place."""


class Seats:
    """The connections of each user, under `shares`. Times are in seconds, of any one clock.

    A connection is silent until it has said a complete line. One that is silent for longer than
    `silent_max_s` gives way to anybody.
    """

    def __init__(self, shares: Shares, silent_max_s: float) -> None:
        self._shares = shares
        self._silent_max_s = silent_max_s
        self._holders: dict[Occupant, int] = {}
        self._uids: dict[Occupant, int] = {}
        self._silent: dict[Occupant, float] = {}  # in order of arrival, with its time
        # Of each holder: the silent ones in order of arrival, the others by last activity.
        self._silent_of: dict[int, dict[Occupant, None]] = {}
        self._heard_of: dict[int, dict[Occupant, None]] = {}

    def has_room(self, uid: int) -> bool:
        """Whether `uid` may have one more connection."""
        return self._shares.has_room(uid)

    def add(self, occupant: Occupant, uid: int, now_s: float) -> None:
        """Adds a connection, which is silent so far."""
        holder = self._shares.holder(uid)
        self._shares.change(uid, 1)
        self._uids[occupant] = uid
        self._holders[occupant] = holder
        self._silent[occupant] = now_s
        self._silent_of.setdefault(holder, {})[occupant] = None

    def heard(self, occupant: Occupant) -> None:
        """Notes that a connection has said something complete. O(1)."""
        holder = self._holders.get(occupant)
        if holder is None:
            return
        heard = self._heard_of.get(holder)
        if heard is None:
            heard = self._heard_of[holder] = {}
        if heard.pop(occupant, self) is self and self._silent.pop(occupant, self) is not self:
            _drop(self._silent_of, holder, occupant)
        heard[occupant] = None

    def remove(self, occupant: Occupant) -> None:
        """Removes a connection that has ended, if it is there."""
        holder = self._holders.pop(occupant, None)
        if holder is None:
            return
        self._shares.change(self._uids.pop(occupant), -1)
        if self._silent.pop(occupant, self) is not self:
            _drop(self._silent_of, holder, occupant)
        else:
            _drop(self._heard_of, holder, occupant)

    def gives_way(self, uid: int, now_s: float) -> Occupant | None:
        """Returns the connection to end for one of `uid`, which has no room; None for no one.

        Of the user with the most connections, if it has more than `uid` would have: the one that is
        silent for longest, else the one that was heard of least recently. Otherwise the one that
        is silent for longest of all, if that is too long. One of which nothing is lost goes before
        one that has sent what is not read yet.
        """
        largest = self._shares.gives_way(uid)
        if largest is not None:
            in_order = chain(self._silent_of.get(largest, ()), self._heard_of.get(largest, ()))
            looked_at = list(islice(in_order, _LOOKED_AT_MAX))
            return next((each for each in looked_at if not each.has_unread), looked_at[0])
        for occupant, since_s in self._silent.items():
            if now_s - since_s < self._silent_max_s:
                return None
            if not self._shares.is_protected(self._holders[occupant]):
                return occupant
        return None


def _drop(of: dict[int, dict[Occupant, None]], holder: int, occupant: Occupant) -> None:
    occupants = of[holder]
    del occupants[occupant]
    if not occupants:
        del of[holder]
