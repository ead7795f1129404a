"""Chunks: records that a sender sends again, with the same bytes, until they are acknowledged.

A chunk is queued as one entry, and so is stored whole, in one commit, or not at all. The commit
also stores its name, as that of a producer (`format.producers`): a chunk whose name is there, or is
queued, is not stored again. Of one user and stream, no more chunks are queued than half of those
whose names are remembered. So whatever is sent again after a crash is still known.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from logengine.format.producers import CHUNKS_MAX, Producer
from logengine.store.committer import Committer
from logengine.store.store import Store

QUEUED_MAX = CHUNKS_MAX // 2


class ChunkReader(Protocol):
    """A connection that reads chunks."""

    stream: str
    uid: int

    def go_on(self) -> bool:
        """Takes the chunks that had to wait. Returns whether it took one."""


class QueuedChunk:
    """The sender of a chunk's entry. `on_durable` is called once the chunk is durable."""

    def __init__(
        self, chunks: "Chunks", stream: str, producer: Producer, on_durable: Callable[[], None]
    ) -> None:
        assert producer.uid is not None
        self._chunks = chunks
        self._on_durable = on_durable
        self.stream = stream
        self.producer = producer
        self.uid = producer.uid

    def durable(self, number: int) -> None:
        """The chunk is on disk."""
        self._chunks.finish(self)
        self._on_durable()


class _Place(NamedTuple):
    """Where chunks are counted."""

    stream: str
    uid: int


class Chunks:
    """The chunks of all connections that are queued, and the connections that wait to queue more.

    Runs on one event loop, with its tasks in `tasks`.
    """

    def __init__(self, store: Store, committer: Committer, tasks: asyncio.TaskGroup) -> None:
        self._store = store
        self._committer = committer
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        # Those of one stream and user: their entries are queued, or in a batch under way.
        self._queued: dict[_Place, set[QueuedChunk]] = {}
        self._names: set[tuple[str, Producer]] = set()
        self._waiting: dict[_Place, dict[ChunkReader, None]] = {}
        self._recovering: dict[str, asyncio.Task[None]] = {}

    def may_queue(self, reader: ChunkReader) -> bool:
        """Whether `reader` may queue a chunk now. If not, its `go_on` is called once it may.

        It may not while it is not known which chunks its stream has, or while there are too many.
        """
        if not self.may_look(reader):
            return False
        place = _Place(reader.stream, reader.uid)
        if len(self._queued.get(place, ())) < QUEUED_MAX:
            return True
        self._waiting.setdefault(place, {})[reader] = None
        return False

    def may_look(self, reader: ChunkReader) -> bool:
        """Whether it is known which chunks the stream has. If not, `go_on` is called once it is."""
        if self._store.knows_producers(reader.stream):
            return True
        self._waiting.setdefault(_Place(reader.stream, reader.uid), {})[reader] = None
        if reader.stream not in self._recovering:
            task = self._tasks.create_task(self._recover(reader.stream))
            self._recovering[reader.stream] = task
        return False

    async def _recover(self, stream: str) -> None:
        try:
            await self._committer.barrier(stream)
        finally:
            del self._recovering[stream]
        for place in [each for each in self._waiting if each.stream == stream]:
            self._let_go_on(place)

    def is_known(self, stream: str, producer: Producer) -> bool:
        """Whether a chunk is stored or queued."""
        is_queued = (stream, producer) in self._names
        return is_queued or self._store.last_durable(stream, producer) > 0

    def queue(self, stream: str, producer: Producer, on_durable: Callable[[], None]) -> QueuedChunk:
        """Returns the sender of the entry that the caller adds for a chunk, also for a known one.

        A known one's entry has no lines, and becomes durable after what was queued before it.
        """
        queued = QueuedChunk(self, stream, producer, on_durable)
        self._queued.setdefault(_Place(stream, queued.uid), set()).add(queued)
        self._names.add((stream, producer))
        return queued

    def finish(self, queued: QueuedChunk) -> None:
        """Notes that a chunk is durable."""
        place = _Place(queued.stream, queued.uid)
        together = self._queued.get(place, set())
        if queued not in together:
            return  # it was forgotten
        together.remove(queued)
        if not together:
            del self._queued[place]
        self._names.discard((queued.stream, queued.producer))
        if place in self._waiting:
            # Not immediately: the committer is still notifying the other senders of a batch.
            self._loop.call_soon(self._let_go_on, place)

    def give_up(self, reader: ChunkReader) -> None:
        """Lets a connection that has ended wait no more."""
        place = _Place(reader.stream, reader.uid)
        waiting = self._waiting.get(place, {})
        waiting.pop(reader, None)
        if not waiting:
            self._waiting.pop(place, None)

    def forget_all(self) -> None:
        """Forgets what is queued, after its entries were dropped and its connections ended."""
        self._queued.clear()
        self._names.clear()

    def _let_go_on(self, place: _Place) -> None:
        readers = self._waiting.pop(place, {})
        have_taken = [reader for reader in readers if reader.go_on()]
        # Those that got nothing come first the next time.
        waiting = self._waiting.get(place, {})
        for reader in have_taken:
            if reader in waiting:
                del waiting[reader]
                waiting[reader] = None
