"""Tracks the connection of each producer: the newest one, which starts after what is durable.

A producer is a name of one user in one stream. Nobody else can use it, not even root.
"""

import asyncio
from collections import Counter
from typing import Protocol

from logengine.format.producers import Producer
from logengine.store.committer import Committer
from logengine.store.store import Store


class Speaker(Protocol):
    """A connection whose hello named a producer."""

    uid: int
    stream: str
    producer: str | None

    def welcome_producer(self, next_number: int, known: int) -> None:
        """Lets it start at `next_number`; `known` is its last number that the daemon knows."""

    def fence(self) -> None:
        """Ends it in favour of a newer connection."""


class Producers:
    """The connection of each producer in each stream. Welcomes run as tasks in `tasks`."""

    def __init__(self, store: Store, committer: Committer, tasks: asyncio.TaskGroup) -> None:
        self._store = store
        self._committer = committer
        self._tasks = tasks
        self._speakers: dict[tuple[str, Producer], Speaker] = {}
        # How many connections name a producer in a stream, whatever their uid.
        self._named: Counter[tuple[str, str]] = Counter()
        self._welcomes: dict[Speaker, asyncio.Task[None]] = {}
        committer.is_connected = self.is_connected

    @property
    def connected(self) -> int:
        """How many producers have a connection."""
        return len(self._speakers)

    @property
    def greeted(self) -> int:
        """How many connections wait for their welcome."""
        return len(self._welcomes)

    def greet(self, speaker: Speaker, first: int | None) -> None:
        """Makes `speaker` its producer's connection, fences the previous one, schedules a welcome.

        `first` is the lowest number that the producer still keeps, if its hello has it.
        """
        key = _key(speaker)
        before = self._speakers.get(key)
        self._speakers[key] = speaker
        self._named[speaker.stream, key[1].name] += before is None
        if before is not None:
            before.fence()
        self._welcomes[speaker] = self._tasks.create_task(self._welcome(speaker, key, first))

    async def _welcome(
        self, speaker: Speaker, key: tuple[str, Producer], first: int | None
    ) -> None:
        stream, producer = key
        generation = -1
        while generation != self._store.generation:
            generation = self._store.generation
            # Commit first what an earlier connection delivered: `next` is an ack, and counts it.
            await self._committer.barrier(stream)
        del self._welcomes[speaker]
        known = self._store.last_durable(stream, producer)
        speaker.welcome_producer(max(known + 1, first or 1), known)

    def is_connected(self, stream: str, producer: Producer) -> bool:
        """Whether a connection of the producer is open; for one without a uid, of any user."""
        if producer.uid is None:
            return self._named[stream, producer.name] > 0
        return (stream, producer) in self._speakers

    def forget(self, speaker: Speaker) -> None:
        """Forgets a connection that has ended."""
        # A stream may fail for hours, and many connections come and go before one is welcomed.
        if welcome := self._welcomes.pop(speaker, None):
            welcome.cancel()
        if speaker.producer is not None:
            key = _key(speaker)
            if self._speakers.get(key) is speaker:
                del self._speakers[key]
                name = speaker.stream, key[1].name
                self._named[name] -= 1
                if not self._named[name]:
                    del self._named[name]


def _key(speaker: Speaker) -> tuple[str, Producer]:
    assert speaker.producer is not None
    return speaker.stream, Producer(speaker.uid, speaker.producer)
