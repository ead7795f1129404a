"""Approximately how many bytes each stream and each user has stored.

That is what the last scan measured, plus what arrived since. No files and no clock: the caller that
scans the disk reports what it measured. Between scans only arrivals are counted, not what was
compressed, removed or erased; so streams and users with little or no room left are noted, to be
scanned again.
"""

from collections.abc import Hashable, Mapping
from math import inf
from typing import Generic, TypeVar

# A stream or user with less than this share of its room left is scanned again.
_NEAR = 1 / 8

Key = TypeVar("Key", bound=Hashable)


class Space(Generic[Key]):
    """The room that one stream or user has left of `max_bytes`; 0 for `max_bytes` is no limit.

    `used` has the bytes of all streams or users; `key` is added to `near` when little room is left.
    """

    def __init__(self, max_bytes: int, used: Mapping[Key, int], near: set[Key], key: Key) -> None:
        self._max_bytes = max_bytes
        self._used = used
        self._near = near
        self._key = key

    def left(self) -> float:
        """Returns how many bytes are left; 0 or less if the room is used up."""
        if not self._max_bytes:
            return inf
        left = self._max_bytes - self._used.get(self._key, 0)
        if left < self._max_bytes * _NEAR:
            self._near.add(self._key)
        return left


class StoredBytes:
    """The stored bytes of each stream, and of each user in all streams together.

    A stream's bytes are those of its files; a user's bytes are those of the user's lines.
    `counts_streams` and `counts_users` say which of them are counted.
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
        """Forgets all counts."""
        self.streams.clear()
        self.users.clear()
        self._in_streams.clear()
        self.near_streams.clear()
        self.near_users.clear()

    def add(self, stream: str, uid: int, size_bytes: int) -> None:
        """Counts lines of a user that are queued to be stored."""
        if self.counts_streams:
            self.streams[stream] = self.streams.get(stream, 0) + size_bytes
        if self.counts_users:
            in_stream = self._in_streams.setdefault(stream, {})
            in_stream[uid] = in_stream.get(uid, 0) + size_bytes
            self.users[uid] = self.users.get(uid, 0) + size_bytes

    def saw_stream(self, stream: str, size_bytes: int) -> None:
        """Replaces the count of a stream by what was measured."""
        self.streams[stream] = size_bytes

    def saw_users(self, stream: str, users: Mapping[int, int]) -> None:
        """Replaces the counts of all users in a stream by what was measured."""
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
        """Whether a stream or user came near its limit since the last `take_near`."""
        return bool(self.near_streams or self.near_users)

    def take_near(self) -> tuple[set[str], set[str]]:
        """Returns the streams to scan: for their own room, and for the room of a user."""
        streams, users = set(self.near_streams), set(self.near_users)
        self.near_streams.clear()
        self.near_users.clear()
        of_users = {
            stream
            for stream, in_stream in self._in_streams.items()
            if not users.isdisjoint(in_stream)
        }
        return streams, of_users
