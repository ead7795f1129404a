"""The connections of all senders, who of them may be read, and the memory they may take."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from logengine.format.record import Peer, envelope, peer_fields, stamp
from logengine.format.timestamp import format_timestamp
from logengine.intake.connection import Connection
from logengine.intake.listeners import Listeners
from logengine.intake.poller import Poller
from logengine.intake.quota import Quotas
from logengine.intake.quota_gate import QuotaGate
from logengine.intake.quota_looks import QuotaLooks
from logengine.protocols.ndjson import (
    Hello,
    begins_with_hello,
    begins_with_status_request,
    error_answer,
)
from logengine.protocols.status import FAILING_STREAMS_MAX, FULL_MAX, Status, TotalsStatus
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.store import Store

log = structlog.get_logger()


class _Nobody:
    """The sender of what the daemon itself writes."""

    uid = os.geteuid()

    def durable(self, number: int) -> None:
        """Waits for nothing."""


_OWN_FIELDS = peer_fields(Peer(os.getpid(), os.geteuid(), os.getegid(), "logengine"))


@dataclass(frozen=True)
class ServerLimits:
    """What senders may take; sizes in bytes, times in seconds."""

    max_record: int = 1024 * 1024
    max_pending: int = 64 * 1024 * 1024
    max_pending_stream: int = 32 * 1024 * 1024
    max_connections: int = 4096
    stall_timeout: float = 30.0
    report_dropped_every: float = 10.0


@dataclass
class ServerTotals:
    """What came in since the start."""

    connections: int = 0
    refused: int = 0


class Server:
    """Accepts senders and decides who may be read.

    A sender is not read while its stream fails or has `max_pending_stream` bytes waiting,
    nor while all together have `max_pending`: then the kernel's buffers fill up, and
    senders block. Where unfinished records take most of that memory, no commit could ever
    make room; then whole records are taken from the kernel's buffers, which makes what is
    held less, and one sender at a time may go on with a record larger than those.

    With `quotas`, a sender that is over one that blocks is not read until it has tokens
    again, and what is over one that drops is dropped, counted, and told of in its stream.
    `looks` keeps them informed of what is stored, where they limit that.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        limits: ServerLimits,
        tasks: asyncio.TaskGroup,
        clock_ns: Callable[[], int] = time.time_ns,
        quotas: Quotas | None = None,
        looks: QuotaLooks | None = None,
    ) -> None:
        self.committer = committer
        self.limits = limits
        self.totals = ServerTotals()
        self._store = store
        self._tasks = tasks
        self._clock_ns = clock_ns
        self.poller = Poller()
        self._timestamp = ""
        self._timestamp_turn = -1
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self.quotas = QuotaGate(
            quotas,
            limits.report_dropped_every,
            self.room,
            self._write,
            looks.look_soon if looks else None,
        )
        self._looks = looks
        if looks is not None:
            looks.on_looked = self.room
        self._listeners = Listeners(
            self._take, limits.max_connections, lambda: len(self._connections)
        )
        self._connections: set[Connection] = set()
        self._producers: dict[tuple[str, str], Connection] = {}
        self._welcomes: dict[Connection, asyncio.Task[None]] = {}
        self._paused: dict[Connection, None] = {}
        self._held_bytes = 0
        self._elected: Connection | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    @property
    def connections(self) -> int:
        """How many senders are connected."""
        return len(self._connections)

    def listen(self, listener: socket.socket, stream: str, *, inherited: bool = False) -> None:
        """Accepts on a listening socket; records go to `stream` unless a hello says otherwise.

        An inherited one is somebody else's too: who waits there is left to the next daemon.
        """
        self._listeners.add(listener, stream, inherited=inherited)

    def listen_instead(self, before: socket.socket, now: socket.socket) -> None:
        """Accepts on `now`, after whoever still waits at `before`, which is closed."""
        self._listeners.replace(before, now)

    async def stop(self) -> None:
        """Stops accepting, takes what was sent so far, and returns when all of it is durable."""
        self._listeners.stop()
        self.quotas.keep_nobody_waiting()
        for connection in list(self._connections):
            connection.stop()
        await self._all_closed.wait()
        self.quotas.report()
        await self.committer.drained()

    def close(self) -> None:
        """Closes all connections at once; nothing more is read."""
        for connection in list(self._connections):
            connection.close()
        self.quotas.close()
        if self._looks is not None:
            self._looks.close()
        self.poller.close()

    def timestamp(self) -> str:
        """The time for what arrives now: one for all that is read in one turn."""
        if self._timestamp_turn != self.poller.turns:
            self._timestamp_turn = self.poller.turns
            self._timestamp = format_timestamp(self._clock_ns())
        return self._timestamp

    def _write(self, stream: str, record: bytes) -> None:
        """Adds a record of the daemon's own to `stream`."""
        timestamp = format_timestamp(self._clock_ns())
        body, count = stamp(record, envelope(timestamp, _OWN_FIELDS))
        self.committer.add(stream, Entry(body, count, timestamp, 0, _Nobody()))

    def _take(self, accepted: socket.socket, stream: str) -> None:
        """Begins with somebody who has connected."""
        connection = Connection(self, accepted, stream)
        self._connections.add(connection)
        self._all_closed.clear()
        self.totals.connections += 1
        connection.resume()

    def admit(self, stream: str) -> None:
        """Gives a stream its place. Raises `TooManyStreams` if there is none."""
        self._store.admit(stream)

    def greet(self, connection: Connection, hello: Hello) -> None:
        """Gives a producer to `connection` and fences the one that had it."""
        assert connection.producer is not None
        key = (connection.stream, connection.producer)
        before = self._producers.get(key)
        self._producers[key] = connection
        if before is not None:
            before.fence()
        self._welcomes[connection] = self._tasks.create_task(self._welcome(connection, hello))

    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        assert connection.producer is not None
        generation = -1
        while generation != self._store.generation:
            generation = self._store.generation
            # What an earlier connection had delivered is to be counted: `next` is an ack.
            await self.committer.barrier(connection.stream)
        del self._welcomes[connection]
        known = self._store.last_durable(connection.stream, connection.producer)
        connection.welcome_producer(max(known + 1, hello.first or 1))

    def send_producers_away(self) -> None:
        """Ends the connections whose numbers were told from a data directory that is another now.

        They come back, and are told from where on to send.
        """
        for connection in list(self._connections):
            if connection.is_numbered:
                connection.send_away()

    def may_read(self, connection: Connection) -> bool:
        """Whether there is room for whatever `connection` sends next."""
        if not self._stream_has_room(connection.stream):
            return False
        return connection is self._elected or not (
            self._is_full() or self.quotas.wait_s(connection)
        )

    def may_read_first_line(self, connection: Connection, waiting: bytes) -> bool:
        """Whether a new connection, for which this is `waiting`, may be read up to its first line.

        That line tells its stream, whether there is room in that or not. Whoever asks how the
        daemon is has an answer at all times.
        """
        if begins_with_status_request(waiting):
            return True
        if self._is_full():
            return False
        return not self.quotas.wait_s(connection) or begins_with_hello(waiting)

    def may_finish_records(self, connection: Connection) -> bool:
        """Whether `connection` may be read up to the end of a record, and no further."""
        return (
            self._is_held_up()
            and self._stream_has_room(connection.stream)
            and not self.quotas.wait_s(connection)
        )

    def quota_room(self, connection: Connection) -> tuple[float, float]:
        """How many records, and bytes, the quotas let through of one that may be read."""
        if connection is self._elected:
            return math.inf, math.inf
        return self.quotas.room(connection)

    def status(self, peer: Peer) -> bytes:
        """The answer to `peer`, who asks how the daemon is."""
        if peer.uid not in (0, os.geteuid()):
            return error_answer("not_allowed", found=peer.uid, expected="root or the daemon's user")
        committer = self.committer
        failing = committer.failing()
        full_streams, full_uids = self.quotas.without_space()
        status = Status(
            status=1,
            ok=not failing and not self._is_full() and self._store.unusable is None,
            pid=os.getpid(),
            data=str(self._store.path),
            uptime_s=round(self._loop.time() - self._started_s, 1),
            streams=self._store.streams,
            connections=len(self._connections),
            max_connections=self.limits.max_connections,
            waiting_senders=len(self._paused),
            pending_bytes=committer.pending_bytes + self._held_bytes,
            max_pending=int(self.limits.max_pending),  # a config.Size, which nothing encodes
            failing_streams=len(failing),
            failing=failing[:FAILING_STREAMS_MAX],
            totals=TotalsStatus(
                records=committer.totals.records,
                bytes=committer.totals.bytes,
                batches=committer.totals.batches,
                failed_commits=committer.totals.failures,
                connections=self.totals.connections,
                refused_records=self.totals.refused,
                over_quota_records=self.quotas.dropped_records,
                dropped_records=committer.totals.dropped_records,
            ),
            streams_at_max_bytes=full_streams[:FULL_MAX],
            uids_at_max_bytes=full_uids[:FULL_MAX],
            unsynced_streams=sorted(self._store.unsynced)[:FULL_MAX],
            unusable=str(self._store.unusable or ""),
            risks=self._store.risks,
        )
        return msgspec.json.encode(status) + b"\n"

    def paused(self, connection: Connection) -> None:
        """Remembers a connection that stopped reading, to go on when there is room."""
        self._paused[connection] = None
        if connection is self._elected and not self._stream_has_room(connection.stream):
            self._end_election()  # it is not its sender who does not go on
        self._elect()
        wait_s = self.quotas.wait_s(connection)
        if wait_s or (self.quotas.are_set and self.may_read(connection)):
            # Also if its tokens came just now: nobody else would tell.
            self.quotas.wait_for_tokens(wait_s)

    def room(self, connection: Connection | None = None) -> None:
        """Lets go on reading whoever may: all that paused, or one."""
        for paused in [connection] if connection else list(self._paused):
            wait_s = self.quotas.wait_s(paused)
            if wait_s and paused is not self._elected:
                self.quotas.wait_for_tokens(wait_s)
            elif self.may_read(paused):
                self._paused.pop(paused, None)
                paused.resume()
        self._elect()

    def held(self, connection: Connection, change_bytes: int, *, finished: bool) -> None:
        """Accounts for bytes that a connection keeps outside of any entry.

        `finished` says that it has finished a record, though it may have begun a longer one.
        """
        self._held_bytes += change_bytes
        if finished and connection is self._elected:
            self._end_election()
            self.room()

    def closed(self, connection: Connection) -> None:
        """Forgets a connection."""
        self._connections.discard(connection)
        # A stream may fail for hours, and many come and go before it can welcome anybody.
        if welcome := self._welcomes.pop(connection, None):
            welcome.cancel()
        self._paused.pop(connection, None)
        if connection.producer is not None:
            key = (connection.stream, connection.producer)
            if self._producers.get(key) is connection:
                del self._producers[key]
        if connection is self._elected:
            self._end_election()
        if not self._connections:
            self._all_closed.set()
        self._listeners.accept_again()
        if self._paused:
            self.room()

    def _stream_has_room(self, stream: str) -> bool:
        return self.committer.has_room(stream, self.limits.max_pending_stream)

    def _is_full(self) -> bool:
        return self.committer.pending_bytes + self._held_bytes >= self.limits.max_pending

    def _is_held_up(self) -> bool:
        """Whether it is unfinished records that take the memory, and not what is committed.

        Where half of it is being committed there will be room by itself. To read on would take
        more of each connection, as much as its socket holds.
        """
        half_bytes = self.limits.max_pending / 2
        if not self._is_full() or self._held_bytes < half_bytes:
            return False
        return self.committer.pending_bytes - self.committer.failing_bytes() < half_bytes

    def _elect(self) -> None:
        if self._elected or not self._paused or not self._is_held_up():
            return
        # One that is not read for its quota, or for its stream, would only be closed for that.
        elected = max(
            (
                paused
                for paused in self._paused
                if self._stream_has_room(paused.stream) and not self.quotas.wait_s(paused)
            ),
            key=lambda connection: connection.held_bytes,
            default=None,
        )
        if elected is None:
            return
        self._elected = elected
        self._stall_timer = self._loop.call_later(self.limits.stall_timeout, elected.stall)
        del self._paused[elected]
        elected.resume()

    def _end_election(self) -> None:
        self._elected = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
