"""Tracks the connection of each producer: the newest one, which starts after what is durable."""

import asyncio
from typing import Protocol

from logengine.store.committer import Committer
from logengine.store.store import Store


class Speaker(Protocol):
    """A connection whose hello named a producer."""

    stream: str
    producer: str | None

    def welcome_producer(self, next_number: int) -> None:
        """Lets it start at `next_number`: all earlier numbers are durable."""

    def fence(self) -> None:
        """Ends it in favour of a newer connection."""


class Producers:
    """The connection of each producer in each stream. Welcomes run as tasks in `tasks`."""

    def __init__(self, store: Store, committer: Committer, tasks: asyncio.TaskGroup) -> None:
        self._store = store
        self._committer = committer
        self._tasks = tasks
        self._speakers: dict[tuple[str, str], Speaker] = {}
        self._welcomes: dict[Speaker, asyncio.Task[None]] = {}

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
        if before is not None:
            before.fence()
        self._welcomes[speaker] = self._tasks.create_task(self._welcome(speaker, key, first))

    async def _welcome(self, speaker: Speaker, key: tuple[str, str], first: int | None) -> None:
        stream, producer = key
        generation = -1
        while generation != self._store.generation:
            generation = self._store.generation
            # Commit first what an earlier connection delivered: `next` is an ack, and counts it.
            await self._committer.barrier(stream)
        del self._welcomes[speaker]
        known = self._store.last_durable(stream, producer)
        speaker.welcome_producer(max(known + 1, first or 1))

    def forget(self, speaker: Speaker) -> None:
        """Forgets a connection that has ended."""
        # A stream may fail for hours, and many connections come and go before one is welcomed.
        if welcome := self._welcomes.pop(speaker, None):
            welcome.cancel()
        if speaker.producer is not None:
            key = _key(speaker)
            if self._speakers.get(key) is speaker:
                del self._speakers[key]


def _key(speaker: Speaker) -> tuple[str, str]:
    assert speaker.producer is not None
    return speaker.stream, speaker.producer
