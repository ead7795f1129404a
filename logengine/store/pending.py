"""The queue of one stream: its entries in order, and the outcome of its last attempts."""

import asyncio
import errno
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import msgspec
from msgspec import UNSET

from logengine.format.producers import Producer
from logengine.protocols.status import FailingStream
from logengine.store.plan import Addition

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Sender(Protocol):
    """The sender of an entry, which waits for the entry to be durable."""

    @property
    def uid(self) -> int:
        """The user that the lines belong to."""

    def durable(self, number: int) -> None:
        """Every entry of this sender up to `number` is durable."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Stored lines of one sender that arrived together.

    `number` is the sender's number of the last line; `producer` is the name, of the sender's user,
    under which that number outlives the connection. The producer `replaces` is forgotten in the
    same commit. If `count` is 0, the entry only marks a number as used, or a place in the stream.
    An entry is in no reference cycle, so the collector does not track it.
    """

    body: bytes
    count: int
    timestamp: str
    number: int
    sender: Sender
    producer: str | None = None
    replaces: str | None = None


@dataclass(eq=False)
class Barrier:
    """The sender of an entry that only marks a place, and the tasks that wait for it."""

    uid: int = 0  # a barrier has no lines
    waiting: int = 0  # tasks in `wait`
    _reached: asyncio.Event = field(default_factory=asyncio.Event)

    def durable(self, number: int) -> None:
        """Wakes the waiting tasks."""
        self._reached.set()

    async def wait(self) -> None:
        """Returns once the place is durable."""
        self.waiting += 1
        try:
            await self._reached.wait()
        finally:
            self.waiting -= 1


@dataclass
class Pending:
    """The queue of one stream, and its retry state."""

    entries: deque[Entry] = field(default_factory=deque)
    bytes: int = 0  # includes entries in batches under way
    under_way: int = 0  # batches that contain entries of this stream
    returned: list[Entry] = field(default_factory=list)  # from failed batches, oldest first
    attempts: int = 0  # failed attempts in a row
    has_failed: bool = False  # a batch of an attempt that is still partly under way has failed
    error: Exception | None = None  # the last failure
    failing_since: float = 0.0  # by the loop's clock
    retry: asyncio.TimerHandle | None = None
    resting: bool = False  # until the next attempt is due
    recovering: bool = False
    wants_recovery: bool = False  # even without entries: the stream was not recovered at the start

    @property
    def is_busy(self) -> bool:
        """Whether a commit or recovery is using its directory."""
        return self.under_way > 0 or self.recovering

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.entries or self.returned or self.under_way)

    @property
    def records(self) -> int:
        """The number of waiting records, without those in batches under way. O(entries)."""
        return sum(entry.count for entry in chain(self.returned, self.entries))

    @property
    def lacks_space(self) -> bool:
        """Whether it fails because the disk or the disk quota is full."""
        return isinstance(self.error, OSError) and self.error.errno in _NO_SPACE

    def take(self, room_bytes: int) -> tuple[list[Entry], int]:
        """Takes the next entries until `room_bytes` are used up; returns them and their bytes.

        The last entry may exceed the room.
        """
        entries: list[Entry] = []
        left_bytes = room_bytes
        while self.entries and left_bytes > 0:
            entry = self.entries.popleft()
            entries.append(entry)
            left_bytes -= len(entry.body)
        self.under_way += 1
        return entries, room_bytes - left_bytes

    def give_back(self, entries: Sequence[Entry]) -> int:
        """Takes back the entries of a failed batch; returns the bytes that are queued again.

        Returns 0 until the later batches, which were planned on this one, are back too.
        """
        self.under_way -= 1
        # A stream may fail for days: forget places that no task waits for any more.
        self.returned += (entry for entry in entries if _is_wanted(entry))
        self.resting = True
        if self.under_way:
            return 0
        size_bytes = sum(len(entry.body) for entry in self.returned)
        self.entries.extendleft(reversed(self.returned))
        self.returned.clear()
        return size_bytes

    def drop_unwanted(self) -> None:
        """Forgets places that no task waits for any more: a stream may fail for days."""
        self.entries = deque(entry for entry in self.entries if _is_wanted(entry))

    def drop(self) -> int:
        """Drops the waiting entries; returns the number of records."""
        records = self.records
        self.entries.clear()
        self.returned.clear()
        return records

    def has_records_of(self, producer: Producer) -> bool:
        """Whether entries of the producer wait, without those in batches under way. O(entries)."""
        return any(
            entry.producer == producer.name and producer.uid in (entry.sender.uid, None)
            for entry in chain(self.returned, self.entries)
        )

    def drop_producers(self) -> list[Entry]:
        """Drops the waiting entries of named producers, and returns them."""
        assert not self.under_way, "entries under way must not be dropped"
        dropped = [entry for entry in self.entries if entry.producer is not None]
        self.entries = deque(entry for entry in self.entries if entry.producer is None)
        return dropped

    def failed(self, error: Exception, now_s: float) -> bool:
        """Notes that a batch failed; returns whether the reason differs from the last one.

        Several batches of one attempt may fail.
        """
        if not self.attempts:
            self.failing_since = now_s
        is_news = self.error is None or _reason(self.error) != _reason(error)
        self.attempts += not self.has_failed
        self.has_failed = True
        self.error = error
        self.resting = True
        return is_news

    def goes_again(self) -> None:
        """Notes that an attempt succeeded."""
        self.attempts = 0
        self.error = None

    def failing(self, stream: str, now_s: float) -> FailingStream:
        """The status report of this failing stream."""
        return FailingStream(
            stream=stream,
            error=str(self.error),
            for_s=round(now_s - self.failing_since, 1),
            attempts=self.attempts,
            waiting_records=self.records,
            waiting_bytes=self.bytes,
        )


def addition_of(entries: Sequence[Entry], *, counts_users: bool) -> Addition:
    """What a batch of these entries adds to its stream."""
    times = [entry.timestamp for entry in entries if entry.count]
    # Even if all records were refused, the producer's progress and its time are stored.
    times = times or [entry.timestamp for entry in entries if entry.timestamp]
    return Addition(
        chunks=[entry.body for entry in entries if entry.body],
        count=sum(entry.count for entry in entries),
        since=min(times, default=""),
        until=max(times, default=""),
        producers={
            Producer(entry.sender.uid, name): number
            for entry in entries
            for name, number in ((entry.replaces, 0), (entry.producer, entry.number))
            if name is not None
        },
        users=_bytes_of_users(entries) if counts_users else UNSET,
    )


def _bytes_of_users(entries: Sequence[Entry]) -> dict[int, int]:
    """The bytes of each user's lines, least recently active user first."""
    users: dict[int, int] = {}
    for entry in entries:
        if entry.body:
            uid = entry.sender.uid
            users[uid] = users.pop(uid, 0) + len(entry.body)
    return users


def _is_wanted(entry: Entry) -> bool:
    return not isinstance(entry.sender, Barrier) or entry.sender.waiting > 0


def _reason(error: Exception) -> str:
    """The reason for a failure, without the file name."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
