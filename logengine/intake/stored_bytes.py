"""How many bytes each stream and each user has stored, about: as last seen, and what came since.

No files and no clock: whoever looks at the disk says what was seen. Between two looks only what
comes is counted, and nothing that was compressed, removed or erased; so who has hardly any room
left, or none, is noted, to be looked at again.
"""

from collections.abc import Hashable, Mapping
from math import inf
from typing import Generic, TypeVar

# Who has less than this share of his room left is looked at again.
_NEAR = 1 / 8

Key = TypeVar("Key", bound=Hashable)


class Space(Generic[Key]):
    """The room that one stream or one user has left of `max_bytes`; without those, no end of it.

    `used` has the bytes of everybody; `near` gets the key of who comes near the end of his room.
    """

    def __init__(self, max_bytes: int, used: Mapping[Key, int], near: set[Key], key: Key) -> None:
        self._max_bytes = max_bytes
        self._used = used
        self._near = near
        self._key = key

    def left(self) -> float:
        """How many bytes there are; 0 or less if it is used up."""
        if not self._max_bytes:
            return inf
        left = self._max_bytes - self._used.get(self._key, 0)
        if left < self._max_bytes * _NEAR:
            self._near.add(self._key)
        return left


class StoredBytes:
    """The bytes of all streams, and of all users in all streams together.

    Of a stream those of its files, of a user those of his lines. Only those are counted that
    `counts_streams` and `counts_users` say.
    """

    def __init__(self, *, counts_streams: bool, counts_users: bool) -> None:
        self.counts_streams = counts_streams
        self.counts_users = counts_users
        self.streams: dict[str, int] = {}
        self.users: dict[int, int] = {}
        self._in_streams: dict[str, dict[int, int]] = {}
        self.near_streams: set[str] = set()
        self.near_users: set[int] = set()

    def clear(self) -> None:
        """Forgets all that is stored."""
        self.streams.clear()
        self.users.clear()
        self._in_streams.clear()
        self.near_streams.clear()
        self.near_users.clear()

    def add(self, stream: str, uid: int, size_bytes: int) -> None:
        """Counts lines of a user that are going to be stored."""
        if self.counts_streams:
            self.streams[stream] = self.streams.get(stream, 0) + size_bytes
        if self.counts_users:
            in_stream = self._in_streams.setdefault(stream, {})
            in_stream[uid] = in_stream.get(uid, 0) + size_bytes
            self.users[uid] = self.users.get(uid, 0) + size_bytes

    def saw_stream(self, stream: str, size_bytes: int) -> None:
        """Takes what was seen of a stream for what it has."""
        self.streams[stream] = size_bytes

    def saw_users(self, stream: str, users: Mapping[int, int]) -> None:
        """Takes what was seen of all users in a stream for what they have there."""
        before = self._in_streams.pop(stream, {})
        after = {uid: size_bytes for uid, size_bytes in users.items() if size_bytes}
        for uid in before.keys() | after.keys():
            in_all = self.users.get(uid, 0) + after.get(uid, 0) - before.get(uid, 0)
            if in_all:
                self.users[uid] = in_all
            else:
                self.users.pop(uid, None)
        if after:
            self._in_streams[stream] = after

    @property
    def anybody_is_near(self) -> bool:
        """Whether somebody came near the end of his room since that was asked for last."""
        return bool(self.near_streams or self.near_users)

    def take_near(self) -> tuple[set[str], set[str]]:
        """The streams to be looked at: for their own room, and for that of a user."""
        streams, users = set(self.near_streams), set(self.near_users)
        self.near_streams.clear()
        self.near_users.clear()
        of_users = {
            stream
            for stream, in_stream in self._in_streams.items()
            if not users.isdisjoint(in_stream)
        }
        return streams, of_users
