"""The server: its listeners and connections, how it starts and how it stops."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from logengine.format.record import Peer, envelope, peer_fields, stamp
from logengine.format.timestamp import format_timestamp
from logengine.intake.admission import Admission
from logengine.intake.arrivals import Arrivals
from logengine.intake.connection import Connection
from logengine.intake.context import IntakeContext
from logengine.intake.datagrams import DatagramSocket
from logengine.intake.listeners import Listeners
from logengine.intake.poller import Poller
from logengine.intake.producers import Producers
from logengine.intake.quota import Quotas, QuotasConfig
from logengine.intake.quota_gate import QuotaGate
from logengine.protocols.status import FAILING_STREAMS_MAX, FULL_MAX, Status, TotalsStatus
from logengine.protocols.wire import Transport, WireProtocol
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import LimitsConfig
from logengine.store.store import Store

log = structlog.get_logger()


class _Nobody:
    """The sender of the daemon's own records."""

    uid = os.geteuid()

    def durable(self, number: int) -> None:
        """Does nothing: the daemon does not wait for its own records."""


_OWN_FIELDS = peer_fields(Peer(os.getpid(), os.geteuid(), os.getegid(), "logengine"))


@dataclass
class ServerTotals:
    """Connections accepted and records refused since the start."""

    connections: int = 0
    refused: int = 0


class Server:
    """Accepts senders; a stop returns when all that they sent is durable.

    With `quotas`, a sender over a blocking quota is not read until it has tokens again. Records
    over a dropping quota are dropped, counted, and reported in their stream. `scan_soon` is called
    when a stream or user has little room left of its `max_bytes`.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        limits: LimitsConfig,
        tasks: asyncio.TaskGroup,
        clock_ns: Callable[[], int] = time.time_ns,
        quotas: Quotas | None = None,
        report_dropped_every_s: float = QuotasConfig().report_every,
        scan_soon: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._committer = committer
        self._limits = limits
        self._clock_ns = clock_ns
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._connections_taken = 0
        self._quotas = QuotaGate(quotas, report_dropped_every_s, self.room, self._write, scan_soon)
        self._poller = Poller()
        self.admission = Admission(
            committer,
            self._quotas,
            max_pending=limits.max_pending,
            max_pending_stream=limits.max_pending_stream,
            stall_timeout_s=limits.stall_timeout,
        )
        self.arrivals = Arrivals(committer, self._quotas, self._poller, clock_ns)
        self.producers = Producers(store, committer, tasks)
        self._surroundings = IntakeContext(
            self._poller,
            self.admission,
            self.arrivals,
            self.producers,
            limits.max_record,
            store.admit,
            self._status,
        )
        self._listeners = Listeners(
            self._take, limits.max_connections, lambda: len(self._connections)
        )
        self._connections: set[Connection] = set()
        self._datagram_sockets: set[DatagramSocket] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    @property
    def connections(self) -> int:
        """How many senders are connected."""
        return len(self._connections)

    @property
    def totals(self) -> ServerTotals:
        """The totals since the start."""
        return ServerTotals(self._connections_taken, self.arrivals.refused)

    def listen(
        self,
        listener: socket.socket,
        stream: str,
        protocol: WireProtocol,
        transport: Transport = "stream",
        *,
        inherited: bool = False,
    ) -> None:
        """Serves a socket. Its records go to `stream` unless a hello names another one.

        An inherited socket outlives this process: at a stop, what waits there is left to the next
        daemon.
        """
        if transport == "stream":
            self._listeners.add(listener, stream, protocol, inherited=inherited)
            return
        datagrams = DatagramSocket(
            self._surroundings,
            listener,
            stream,
            protocol,
            self._datagrams_closed,
            inherited=inherited,
        )
        self._datagram_sockets.add(datagrams)
        self._all_closed.clear()
        datagrams.resume()

    def listen_no_more(self, listener: socket.socket) -> None:
        """Reads what has reached a socket by now, and closes it."""
        self._listeners.remove(listener)
        for each in list(self._datagram_sockets):
            if each.is_of(listener):
                each.stop()

    def room(self) -> None:
        """Resumes the senders for whom there is room again."""
        self.admission.let_go_on()

    def send_producers_away(self) -> None:
        """Closes the connections of producers, after the data directory was replaced.

        Their numbers came from the old directory. They reconnect, and a new welcome says from which
        number on to send.
        """
        for connection in list(self._connections):
            if connection.is_numbered:
                connection.send_away()

    async def stop(self) -> None:
        """Stops accepting, reads what was sent so far, and returns when all of it is durable."""
        self._listeners.stop()
        self._committer.hurry()
        self._quotas.keep_nobody_waiting()
        for each in self._open():
            each.stop()
        await self._all_closed.wait()
        self._quotas.report()
        await self._committer.drained()

    def close(self) -> None:
        """Closes all connections immediately; reads nothing more."""
        for each in self._open():
            each.close()
        self._quotas.report()  # after a stop that timed out, the report is at least in the log
        self._quotas.close()
        self._poller.close()

    def _take(self, accepted: socket.socket, stream: str, protocol: WireProtocol) -> None:
        """Starts serving an accepted connection."""
        connection = Connection(self._surroundings, accepted, stream, protocol, self._closed)
        self._connections.add(connection)
        self._all_closed.clear()
        self._connections_taken += 1
        connection.resume()

    def _closed(self, connection: Connection) -> None:
        """Removes a closed connection."""
        self._connections.discard(connection)
        self.producers.forget(connection)
        self._note_if_all_closed()
        self._listeners.accept_again()
        self.admission.forget(connection)

    def _datagrams_closed(self, datagrams: DatagramSocket) -> None:
        self._datagram_sockets.discard(datagrams)
        self._note_if_all_closed()
        self.admission.forget(datagrams)

    def _open(self) -> list[Connection | DatagramSocket]:
        return [*self._connections, *self._datagram_sockets]

    def _note_if_all_closed(self) -> None:
        if not (self._connections or self._datagram_sockets):
            self._all_closed.set()

    def _write(self, stream: str, record: bytes) -> None:
        """Adds a record of the daemon's own to `stream`."""
        timestamp = format_timestamp(self._clock_ns())
        body, count = stamp(record, envelope(timestamp, _OWN_FIELDS))
        self._committer.add(stream, Entry(body, count, timestamp, 0, _Nobody()), is_awaited=False)

    def _status(self, peer: Peer) -> Status | None:
        """Returns the daemon's status; None for peers other than root and the daemon's user."""
        if peer.uid not in (0, os.geteuid()):
            return None
        committer = self._committer
        failing = committer.failing()
        full_streams, full_uids = self._quotas.without_space()
        return Status(
            status=1,
            ok=not failing and not self.admission.is_full and self._store.unusable is None,
            pid=os.getpid(),
            data=str(self._store.path),
            uptime_s=round(self._loop.time() - self._started_s, 1),
            streams=self._store.streams,
            connections=len(self._connections),
            max_connections=self._limits.max_connections,
            waiting_senders=self.admission.paused,
            pending_bytes=self.admission.pending_bytes,
            max_pending=int(self._limits.max_pending),  # msgspec cannot encode a config.Size
            failing_streams=len(failing),
            failing=failing[:FAILING_STREAMS_MAX],
            totals=TotalsStatus(
                records=committer.totals.records,
                bytes=committer.totals.bytes,
                batches=committer.totals.batches,
                failed_commits=committer.totals.failures,
                connections=self._connections_taken,
                refused_records=self.arrivals.refused,
                over_quota_records=self._quotas.dropped_records,
                dropped_records=committer.totals.dropped_records,
                datagrams=self.arrivals.datagrams,
            ),
            streams_at_max_bytes=full_streams[:FULL_MAX],
            uids_at_max_bytes=full_uids[:FULL_MAX],
            unsynced_streams=sorted(self._store.unsynced)[:FULL_MAX],
            unusable=str(self._store.unusable or ""),
            risks=self._store.risks,
        )
