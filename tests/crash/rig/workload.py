"""A server and its producers in one process, small and drawn from a seed.

Several streams, group commits of one record and of many, active segments written again
and ended, batches prepared while the one before is in fsync, a stream that begins in the
middle, producers that come back and that fence each other, refused records, a sender
without a name, and a follower.
"""

import asyncio
import contextlib
import itertools
import json
import math
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import msgspec

from logengine.disk import writes
from logengine.disk.commit_way import CommitWay
from logengine.intake.server import Server
from logengine.protocols.ndjson import PROTOCOL as NDJSON
from logengine.reading.follower import Follower
from logengine.store.committer import Committer
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from logengine.units import Size
from logengine.upkeep.compaction import Compactor
from logengine.upkeep.compaction_plan import CompactionConfig
from logengine.upkeep.retention_plan import RetentionRules
from logengine.upkeep.rewrite import Pace, Rewriter
from tests.crash.rig import journal, power_cut, retaining
from tests.crash.rig.oracle import (
    COMMIT,
    LIMITS,
    Durable,
    MakeRetainer,
    Producer,
    Sent,
    Shown,
    Trims,
    record_line,
)

MAX_RECORD = 600
# So small that segments are merged and sealed within a few records; in every other run
# streams go quiet, too, by a clock that counts how often it is looked at.
_COMPACTION_CONFIGS = [
    CompactionConfig(
        fanout=2,
        seal_bytes=4000,
        seal_after=quiet,
        seal_small_after=2 * quiet,
    )
    for quiet in (50, math.inf)
]
# Where seals are to go again within a run, they have to come sooner.
_SEAL_BYTES_RETAINED = 900
_QUIET = 10_000
_PASSES = 3  # after the last ack: to seal what is left, and to try again what failed
Note = Callable[[Any], None]

# Single records are committed by the loop itself in every fourth run, whatever the clock says.
_COMMIT_CONFIGS = [
    CommitConfig(
        max_batch=3000,
        pipeline_bytes=300,
        in_loop_below=in_loop_below,
        retry_min=0.0005,
        retry_max=0.002,
    )
    for in_loop_below in (0, math.inf)
]
_DIRECT_ABOVE = 4096  # in runs with one flush
_COUNTS_USERS_EVERY = 5  # of the seeds: headers say what is stored of each user
_NAMELESS = 0.2  # of the senders
_COMES_BACK = 0.1  # after a burst
_REFUSED = 0.05  # of the records
# Of the runs with retention, in which whoever reads has a cursor.
_FOLLOWED = 0.5
_READ_ELSEWHERE = 0.6
_READ_IN_THE_END = 0.8
_CURSOR_MOVES = 0.4  # when a record was shown
_ADDRESS_PARTS = 4  # daemon, stream, producer, connection
# A frozen clock: what is stored must not depend on when it was.
_NANOSECONDS = 1_795_000_000_000_000_000


@dataclass(frozen=True)
class Plan:
    """Who sends what: for each producer the bursts in which its records go out."""

    bursts: dict[Producer, list[int]]
    seed: int
    follows: bool = True
    retention: RetentionRules | None = None
    drops_oldest: bool = False  # on a full disk, in all streams
    one_flush: bool = False  # commits take one flush
    has_journal: bool = False  # so that this is enough

    @classmethod
    def drawn(
        cls,
        seed: int,
        *,
        streams: int = 3,
        records: int = 10,
        follows: bool = True,
        retains: bool = False,
        drops_oldest: bool = False,
        one_flush: bool = False,
        has_journal: bool = False,
    ) -> "Plan":
        """A plan under `seed`, of up to `streams` streams and `records` records a producer."""
        source = random.Random(seed)
        bursts = {}
        names = ["app", "web", "audit", "db"][:streams]
        for number in range(source.randint(2, 4)):
            left = source.randint(2, records)
            mine = []
            while left > 0:
                mine.append(min(left, source.choice([1, 1, 2, 5])))
                left -= mine[-1]
            stream = source.choice(names)
            is_nameless = source.random() < _NAMELESS
            bursts[("default", f"_{number}") if is_nameless else (stream, f"p{number}")] = mine
        rules = None
        if retains:
            drawn = random.Random(f"rules {seed}")
            rules = retaining.drawn_rules(drawn)
            follows = follows and drawn.random() < _FOLLOWED
        return cls(bursts, seed, follows, rules, drops_oldest, one_flush, has_journal)

    @property
    def streams(self) -> list[str]:
        """The streams that are sent to."""
        return sorted({stream for stream, _ in self.bursts})

    def disk(self) -> power_cut.Disk:
        """An empty disk, by the model of the file system that the plan is for."""
        return journal.Disk() if self.has_journal else power_cut.Disk()

    def commit_way(self) -> CommitWay:
        """How many flushes a commit takes."""
        return CommitWay(1 if self.one_flush else 2, "the plan says so")

    @property
    def make_retainer(self) -> MakeRetainer | None:
        """What has the plan's rules for any data directory, if it has some."""
        rules = self.retention
        if rules is None:
            return None
        return lambda data, names: retaining.retainer(data, rules, names)


def is_refused(producer: Producer, number: int) -> bool:
    """Whether a record is one that is too large; the same one is whenever it is sent."""
    is_nameless = producer[1].startswith("_")
    return not is_nameless and random.Random(f"refused {producer}{number}").random() < _REFUSED


@dataclass
class _Sender:
    """One producer, from its first record to the ack of its last."""

    producer: Producer
    bursts: list[int]
    address: str
    note: Note
    half_closed: dict[Producer, int]
    source: random.Random
    _socket: socket.socket | None = None
    _received: bytes = b""
    _connections: int = 0
    _sent: int = 0
    _acked: int = 0

    async def run(self) -> None:
        """Sends all there is, and returns once that is durable."""
        total = sum(self.bursts)
        if self.producer[1].startswith("_"):
            await self._run_nameless()
            return
        while await self._one_connection() < total:
            pass

    async def _run_nameless(self) -> None:
        """No hello, no answers: the end that comes back says that all is on disk."""
        loop = asyncio.get_running_loop()
        with self._connected() as connection:
            for burst in self.bursts:
                await loop.sock_sendall(connection, self._records(burst))
                await asyncio.sleep(0)
            self.half_closed[self.producer] = self._sent
            connection.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(connection, 100) == b""

    async def _one_connection(self) -> int:
        """Goes on from `next`; how far everything is durable when it ends."""
        stream, name = self.producer
        loop = asyncio.get_running_loop()
        with self._connected() as connection:
            self._received = b""
            hello = {"_hello": 1, "stream": stream, "producer": name, "first": 1}
            await loop.sock_sendall(connection, json.dumps(hello).encode() + b"\n")
            self._sent = self._acked = (await self._answer())["next"] - 1
            for burst in self._bursts_left():
                await loop.sock_sendall(connection, self._records(burst))
                if self.source.random() < 0.5:
                    await self._durable(self._sent)
                if self.source.random() < _COMES_BACK:
                    return self._acked  # perhaps before all was acknowledged
            await self._durable(self._sent)
            return self._acked

    def _bursts_left(self) -> Iterator[int]:
        done = 0
        for burst in self.bursts:
            if done + burst > self._sent:
                yield done + burst - max(done, self._sent)
            done += burst

    def _records(self, count: int) -> bytes:
        lines = b""
        for number in range(self._sent + 1, self._sent + count + 1):
            # The same record of the same producer is always the same.
            drawn = random.Random(f"{self.producer}{number}")
            if is_refused(self.producer, number):
                lines += b"x" * (MAX_RECORD + 1) + b"\n"
                continue
            self.note(Sent(self.producer, number))
            lines += record_line(self.producer[1], number, drawn.choice([0, 50, 400])) + b"\n"
        self._sent += count
        return lines

    async def _durable(self, number: int) -> None:
        while self._acked < number:
            answer = await self._answer()
            self._acked = max(self._acked, answer.get("ack", 0))

    async def _answer(self) -> dict[str, Any]:
        assert self._socket is not None
        while b"\n" not in self._received:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
            if not data:
                raise ConnectionResetError
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        self._connections += 1
        with socket.socket(socket.AF_UNIX) as connection:
            self._socket = connection
            connection.setblocking(False)
            # A name of its own tells the listener's side whose connection it is.
            stream, name = self.producer
            connection.bind(f"\0{self.address[1:]}/{stream}/{name}/{self._connections}")
            connection.connect(self.address)
            yield connection


async def run(data: Path, plan: Plan, executor: Executor, note: Note) -> None:
    """Serves `data` and sends what `plan` says; returns when all of it is durable.

    `note` is told of every record before it is sent, and of every promise before it
    leaves: an ack, a welcome, an end of file, a record that a follower shows.
    """
    half_closed: dict[Producer, int] = {}
    source = random.Random(plan.seed)
    with _promises_noted(note, half_closed):
        async with _serving(data, executor, note, plan) as address, asyncio.TaskGroup() as tasks:
            for producer, bursts in plan.bursts.items():
                own = random.Random(source.random())
                sender = _Sender(producer, bursts, address, note, half_closed, own)
                tasks.create_task(sender.run())
        half_closed.clear()


@contextlib.asynccontextmanager
async def _serving(data: Path, executor: Executor, note: Note, plan: Plan) -> AsyncIterator[str]:
    """A server on `data`; its address."""
    # What is written past the page cache takes two flushes.
    direct_above = Size(_DIRECT_ABOVE if plan.one_flush else COMMIT.direct_above)
    commit = msgspec.structs.replace(COMMIT, direct_above=direct_above, one_flush="auto")
    store = Store(data, executor, commit, LIMITS)
    store.open()
    listener = socket.socket(socket.AF_UNIX)
    address = "\0" + tempfile.mktemp(prefix="logengine-", dir="")
    listener.bind(address)
    listener.listen(64)
    with contextlib.closing(store), _small_direct_writes():
        async with asyncio.TaskGroup() as tasks:
            server: Server

            def has_room() -> None:
                server.room()

            committer = Committer(
                store,
                _COMMIT_CONFIGS[plan.seed % 4 == 0],
                tasks,
                drops_oldest=lambda _: plan.drops_oldest,
                counts_users=plan.seed % _COUNTS_USERS_EVERY == 0,
                on_room=has_room,
            )
            server = Server(
                store,
                committer,
                LimitsConfig(max_record=MAX_RECORD),
                tasks,
                clock_ns=lambda: _NANOSECONDS,
            )
            server.listen(listener, "default", NDJSON)
            readers = _Readers(data, plan, note)
            compactor, pass_time = _compactor(store, committer, executor, plan)
            tasks.create_task(compactor.run())
            following = tasks.create_task(_follow(data, readers.shown)) if plan.follows else None
            try:
                yield address
                readers.end()
                for _ in range(_PASSES):
                    pass_time()
                    await compactor.idle()
            finally:
                await compactor.stop()
                if following is not None:
                    following.cancel()
                server.close()
                await committer.close()
                listener.close()


class _Readers:
    """Who reads the streams of a run with retention: a follower, and perhaps somebody else.

    Both have cursors, where anybody waits for those. `shown` takes what the follower shows.
    """

    def __init__(self, data: Path, plan: Plan, note: Note) -> None:
        self._plan = plan
        self._note = note
        self._cursors: retaining.Cursors | None = None
        self._source = random.Random(f"cursors {plan.seed}")
        self._waits_elsewhere = False
        if plan.drops_oldest or plan.retention is not None:
            for stream in plan.streams:
                note(Trims(stream, seals_only=not plan.drops_oldest))
        # Where there is no room, nobody's cursor is waited for.
        if plan.drops_oldest or plan.retention is None or plan.retention.keep_free:
            return
        self._cursors = retaining.Cursors(data, note)
        if self._source.random() < _READ_ELSEWHERE:
            self._cursors.register("elsewhere", plan.streams, self._source.randint(0, 12))
            self._waits_elsewhere = self._source.random() < _READ_IN_THE_END
        if plan.follows:
            self._cursors.register("follower", plan.streams, 0)

    def shown(self, event: Shown) -> None:
        self._note(event)
        if self._cursors is not None and self._source.random() < _CURSOR_MOVES:
            self._cursors.move("follower", event.stream, event.seq)

    def end(self) -> None:
        """Reads the rest: several segments may go at once."""
        if self._cursors is not None and self._waits_elsewhere:
            for stream in self._plan.streams:
                self._cursors.move("elsewhere", stream, 10**9)


def _compactor(
    store: Store, committer: Committer, executor: Executor, plan: Plan
) -> tuple[Compactor, Callable[[], None]]:
    """A compactor, and what makes it believe that all streams have gone quiet."""
    ticks = itertools.count()
    passed = 0
    config = _COMPACTION_CONFIGS[plan.seed % 2]
    retainer = None
    if plan.make_retainer is not None:
        config = msgspec.structs.replace(config, seal_bytes=_SEAL_BYTES_RETAINED)
        retainer = plan.make_retainer(store.data, store.names)
    rewriter = Rewriter(
        store.data,
        Pace(math.inf),
        names=store.names,
        direct_above=COMMIT.direct_above,
        level=1,
    )
    compactor = Compactor(
        store,
        committer,
        rewriter,
        config,
        executor,
        lambda: next(ticks) + passed,
        retainer=retainer,
        retry_max_s=4,
    )

    def pass_time() -> None:
        nonlocal passed
        passed += _QUIET
        compactor.look()

    return compactor, pass_time


@contextlib.contextmanager
def _small_direct_writes() -> Iterator[None]:
    """Writes past the page cache of a few blocks, each as small as a disk has them."""
    with (
        patch.object(writes, "_ALIGNMENT", 512),
        patch.object(writes, "_STAGING_BYTES", 1024),
        patch.object(writes, "_staging_areas", []),
    ):
        yield


async def _follow(data: Path, note: Note) -> None:
    def report(problem: object) -> None:
        raise AssertionError(problem)

    async for block in Follower(data, None, {}, report).blocks():
        for record in block.records():
            note(Shown(record.stream, record.seq, record.line))


@contextlib.contextmanager
def _promises_noted(note: Note, half_closed: Mapping[Producer, int]) -> Iterator[None]:
    """Notes what the server's side of each connection promises, just before it does."""
    senders: WeakKeyDictionary[socket.socket, Producer | None] = WeakKeyDictionary()
    real_close = socket.socket.close

    def sender_of(connection: socket.socket) -> Producer | None:
        if connection not in senders:
            senders[connection] = _producer_of_peer(connection)
        return senders[connection]

    def send(connection: socket.socket, data: Any, *args: Any) -> int:
        if producer := sender_of(connection):
            for line in bytes(data).splitlines():
                answer = json.loads(line)
                if "ack" in answer:
                    note(Durable(producer, answer["ack"]))
                elif "next" in answer:
                    note(Durable(producer, answer["next"] - 1))
        return super(socket.socket, connection).send(data, *args)

    def close(connection: socket.socket) -> None:
        producer = senders.get(connection)
        if producer is not None and producer in half_closed:
            note(Durable(producer, half_closed[producer]))
        real_close(connection)

    real_accept = socket.socket.accept

    def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
        connection, address = real_accept(listener)
        sender_of(connection)
        return connection, address

    with (
        patch.object(socket.socket, "send", send),
        patch.object(socket.socket, "close", close),
        patch.object(socket.socket, "accept", accept),
    ):
        yield


def _producer_of_peer(connection: socket.socket) -> Producer | None:
    try:
        name = connection.getpeername()
    except OSError:
        return None
    parts = name.decode().split("/") if isinstance(name, bytes) else []
    return (parts[1], parts[2]) if len(parts) == _ADDRESS_PARTS else None
