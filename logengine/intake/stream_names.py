"""The names of streams: who took a new one, and how long it counts.

A hello takes a name only while its connection is open or records of the stream wait. The first
durable record makes the stream permanent.
"""

from collections.abc import Hashable
from typing import Protocol

from logengine.errors import TooManyStreams
from logengine.intake.shares import Shares


class Streams(Protocol):
    """As much of a store as the names depend on."""

    @property
    def generation(self) -> int:
        """Counts the data directories opened."""

    @property
    def known(self) -> frozenset[str]:
        """The names of the streams that exist, or were begun."""

    def is_known(self, stream: str) -> bool:
        """Whether `stream` is one of them."""

    def forget_unused(self, stream: str) -> bool:
        """Forgets a stream without a record, if nothing of it may be on disk.

        Returns whether it is not known any more.
        """


class Queues(Protocol):
    """As much of a committer as the names depend on."""

    def is_waiting(self, stream: str) -> bool:
        """Whether something waits to be committed to `stream`."""


class StreamNames:
    """Counts the streams of each user, those that it began since the start, under `shares`.

    `streams_max` is how many there may be in all, which the shares are parts of. Streams that were
    there at the start are nobody's, and those of listeners do not count.
    """

    def __init__(self, store: Streams, queues: Queues, shares: Shares, streams_max: int) -> None:
        self._store = store
        self._queues = queues
        self._shares = shares
        self._streams_max = streams_max
        self._of_listeners: set[str] = set()
        self._owners: dict[str, int] = {}  # of the names that were taken since the start
        self._users: dict[str, set[Hashable]] = {}  # of a name that is not permanent yet
        self._taken: dict[Hashable, str] = {}
        self._given_back: set[str] = set()  # by all, while records wait
        self._unowned = 0
        self._generation = -1

    def keep(self, stream: str) -> None:
        """Sets a name aside for a listener, for good."""
        self._of_listeners.add(stream)
        self._generation = -1

    def take(self, user: Hashable, stream: str, uid: int) -> None:
        """Takes a name for `user`, a connection of `uid`, unless the stream is there.

        Raises `TooManyStreams` if there is no room for one more of this user's.
        """
        if stream not in self._owners:
            if self._is_there(stream):
                return
            if not self.may_take(stream, uid):
                raise TooManyStreams(
                    f"stream {stream!r} would be one more than there may be of user {uid}: "
                    f"{self._shares.total + self._unowned} of max_streams ({self._streams_max}) "
                    "are taken; use an existing stream, or raise [limits] max_streams"
                )
            self._owners[stream] = uid
            self._shares.change(uid, 1)
        self._given_back.discard(stream)
        self._users.setdefault(stream, set()).add(user)
        self._taken[user] = stream

    def may_take(self, stream: str, uid: int) -> bool:
        """Whether there is a stream of this name, or room for one more of this user's."""
        if stream in self._owners or self._is_there(stream):
            return True
        return self._shares.has_room(uid, unowned=self._count_unowned())

    def give_back(self, user: Hashable) -> None:
        """Gives back what `user` took; the name is free again once nobody uses it."""
        stream = self._taken.pop(user, None)
        if stream is None:
            return
        users = self._users[stream]
        users.discard(user)
        if not users:
            del self._users[stream]
            self._given_back.add(stream)
            self._forget_unused(stream)

    def look_again(self) -> None:
        """Frees names for which records no longer wait."""
        for stream in list(self._given_back):
            self._forget_unused(stream)

    def _is_there(self, stream: str) -> bool:
        return self._store.is_known(stream) or stream in self._of_listeners

    def _forget_unused(self, stream: str) -> None:
        if self._queues.is_waiting(stream):
            return
        self._given_back.discard(stream)
        if self._store.forget_unused(stream):
            self._shares.change(self._owners.pop(stream), -1)

    def _count_unowned(self) -> int:
        """Returns how many streams are nobody's. Only another directory changes that."""
        if self._generation != self._store.generation:
            self._generation = self._store.generation
            known = self._store.known
            in_use = self._users.keys() | self._given_back
            for stream in self._owners.keys() - in_use:
                if stream not in known:
                    self._shares.change(self._owners.pop(stream), -1)
            self._unowned = len(known - self._of_listeners - self._owners.keys())
        return self._unowned
