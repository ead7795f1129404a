"""The server: its listeners and connections, how it starts and how it stops."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from logengine.format.record import Peer, envelope, peer_fields, stamp
from logengine.format.timestamp import format_timestamp
from logengine.intake.admission import Admission, Reader
from logengine.intake.arrivals import Arrivals
from logengine.intake.chunks import Chunks
from logengine.intake.connection import Connection
from logengine.intake.context import IntakeContext
from logengine.intake.credentials import uid_of
from logengine.intake.datagrams import DatagramSocket
from logengine.intake.hello_timeout import HelloTimeout
from logengine.intake.listeners import Entrance, Listeners
from logengine.intake.network import NETWORK_UID, Network, NetworkConnections, peer_address
from logengine.intake.poller import Poller
from logengine.intake.pressure_drops import PressureDrops
from logengine.intake.producers import Producers
from logengine.intake.quota import Quotas, QuotasConfig
from logengine.intake.quota_gate import QuotaGate
from logengine.intake.request_servers import RequestServers
from logengine.intake.requests import REQUESTS_MAX, RequestConnection
from logengine.intake.router import Router, StreamTexts
from logengine.intake.routes import Routes
from logengine.intake.seats import Occupant, Seats
from logengine.intake.shares import Rule, Shares
from logengine.intake.space_shares import SpaceShares
from logengine.intake.stream_names import StreamNames
from logengine.intake.tls import TlsSockets
from logengine.intake.waiting_room import GUESTS_MAX, Guest, WaitingRoom
from logengine.protocols.status import (
    FAILING_STREAMS_MAX,
    FILES_MAX,
    FULL_MAX,
    FileStatus,
    Status,
    TotalsStatus,
)
from logengine.protocols.wire import Transport, WireProtocol
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import LimitsConfig
from logengine.store.store import Store

log = structlog.get_logger()

_GUESTS_AGAIN_S = 1.0


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
    when a stream or user has little room left of its `max_bytes`, or of free space, of which
    `space` knows. `guests_max` connections may wait for their turn beyond `max_connections`.
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
        space: SpaceShares | None = None,
        guests_max: int = GUESTS_MAX,
    ) -> None:
        self._store = store
        self._committer = committer
        self._limits = limits
        self._clock_ns = clock_ns
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._connections_taken = 0
        self._space = space or SpaceShares(())
        self._quotas = QuotaGate(quotas, report_dropped_every_s, self.room, self._write, scan_soon)
        privileged = {0, os.geteuid()}
        self._poller = Poller(others_commit=lambda: committer.commits_small)
        self.admission = Admission(
            committer,
            self._quotas,
            memory=Rule.of(
                limits.max_pending,
                reserved_percent=limits.reserved_percent,
                uid_percent=limits.uid_percent,
            ),
            privileged=privileged,
            max_pending_stream=limits.max_pending_stream,
            stall_timeout_s=limits.stall_timeout,
        )
        self.arrivals = Arrivals(committer, self._quotas, self._poller, clock_ns)
        self.producers = Producers(store, committer, tasks)
        self._chunks = Chunks(store, committer, tasks)
        seats = Shares(
            Rule.of(limits.max_connections, reserved_percent=limits.reserved_percent), privileged
        )
        self._seats = Seats(seats, limits.hello_timeout)
        self._waiting_room = WaitingRoom(seats, guests_max, self._take)
        self._guests_timer: asyncio.TimerHandle | None = None
        self._hello_timeout = HelloTimeout(limits.hello_timeout)
        streams = Rule.of(
            limits.max_streams,
            reserved_percent=limits.reserved_percent,
            uid_percent=limits.uid_percent,
        )
        self._stream_names = StreamNames(
            store, committer, Shares(streams, privileged), limits.max_streams
        )
        self._pressure_drops = PressureDrops(report_dropped_every_s, self._has_room, self._write)
        self._surroundings = IntakeContext(
            self._poller,
            self.admission,
            self.arrivals,
            self.producers,
            self._chunks,
            self._seats,
            self._hello_timeout,
            self._stream_names,
            self._pressure_drops,
            limits.max_record,
            self._status,
        )
        self._stream_texts = StreamTexts()
        self._routers: dict[Routes, Router] = {}
        self._listeners = Listeners(self._receive, self._waiting_room.room_in_s)
        self._tasks = tasks
        self._request_servers = RequestServers(
            self._surroundings,
            limits,
            Shares(
                Rule.of(
                    REQUESTS_MAX,
                    reserved_percent=limits.reserved_percent,
                    uid_percent=limits.uid_percent,
                ),
                privileged,
            ),
            tasks,
        )
        self._network_connections = NetworkConnections()
        self._tls = TlsSockets()
        self._connections: set[Connection] = set()
        self._request_connections: set[RequestConnection] = set()
        self._datagram_sockets: set[DatagramSocket] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        # The state of each followed file, those with a problem first.
        self.followed_files: Callable[[], Sequence[FileStatus]] = lambda: ()

    @property
    def connections(self) -> int:
        """How many senders are connected."""
        return len(self._connections) + len(self._request_connections)

    @property
    def around(self) -> IntakeContext:
        """The parts that whoever else takes records works with."""
        return self._surroundings

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
        drops: bool = False,
        routes: Routes | None = None,
        network: Network | None = None,
    ) -> None:
        """Serves a socket. Its records go to `stream` unless a hello names another one.

        A datagram socket that `drops` drops what there is no room for. With `routes`, records go
        to the streams that these name; `stream` is for the others. An inherited socket outlives
        this process: at a stop, what waits there is left to the next daemon. `network` has the
        limits of a socket of the network.
        """
        self._stream_names.keep(stream)
        if protocol.served_by != "connection":
            self._request_servers.prepare(protocol.served_by)
        router = None if routes is None else self.router(routes, stream)
        if transport == "stream":
            entrance = Entrance(stream, protocol, router, network)
            self._listeners.add(listener, entrance, inherited=inherited)
            return
        datagrams = DatagramSocket(
            self._surroundings,
            listener,
            stream,
            protocol,
            self._datagrams_closed,
            inherited=inherited,
            drops=drops,
            router=router,
        )
        self._datagram_sockets.add(datagrams)
        self._all_closed.clear()
        datagrams.resume()

    def router(self, routes: Routes, fallback: str) -> Router:
        """Returns the router by `routes`. Their streams count as those of their first sender.

        `fallback` is a stream for records that name none, or one too many.
        """
        if routes not in self._routers:
            for stream in (fallback, *routes.fixed_streams):
                self._stream_names.keep(stream)
            self._routers[routes] = Router(routes, self._stream_names, self._stream_texts, fallback)
        return self._routers[routes]

    def listen_no_more(self, listener: socket.socket) -> None:
        """Reads what has reached a socket by now, and closes it."""
        self._listeners.remove(listener)
        for each in list(self._datagram_sockets):
            if each.is_of(listener):
                each.stop()

    def room(self) -> None:
        """Resumes the senders for whom there is room again, and frees names of streams."""
        self._stream_names.look_again()
        self.admission.let_go_on()

    def send_producers_away(self) -> None:
        """Closes the connections of producers, after the data directory was replaced.

        Their numbers came from the old directory. They reconnect, and a new welcome says from which
        number on to send. Senders that wait for chunks send them again.
        """
        for connection in list(self._connections):
            if connection.is_numbered:
                connection.send_away()
        self._chunks.forget_all()

    async def stop(self) -> None:
        """Stops accepting, reads what was sent so far, and returns when all of it is durable."""
        self._listeners.stop()
        self._committer.hurry()
        for guest in self._waiting_room.take_all():
            self._take(guest)  # it may have sent records already
        self._quotas.keep_nobody_waiting()
        await self._tls.stop()
        self._request_servers.stop()
        for each in self._open():
            each.stop()
        await self._all_closed.wait()
        await self._tls.answered()
        self._pressure_drops.report(is_last=True)
        self._quotas.report()
        await self._committer.drained()

    def close(self) -> None:
        """Closes all connections immediately; reads nothing more."""
        self._waiting_room.close()
        for each in self._open():
            each.close()
        self._request_servers.close()
        self._hello_timeout.close()
        if self._guests_timer is not None:
            self._guests_timer.cancel()
        self._quotas.report()  # after a stop that timed out, the report is at least in the log
        self._pressure_drops.report(is_last=True)
        self._quotas.close()
        self._pressure_drops.close()
        self._network_connections.close()
        self._tls.close()
        self._poller.close()

    def _receive(self, accepted: socket.socket, entrance: Entrance) -> None:
        """Serves an accepted connection, in place of another one if necessary, or lets it wait."""
        address, network = None, entrance.network
        if network is not None:
            address = peer_address(accepted)
            if address is None or self._is_one_too_many(network, address, entrance.stream):
                accepted.close()
                return
            if network.tls is not None:
                accepted = self._tls.decrypted(
                    accepted, network.tls.context, network.handshake_timeout_s, address
                )
            uid = NETWORK_UID
        else:
            uid = uid_of(accepted)
        guest = Guest(
            accepted,
            uid,
            entrance.stream,
            entrance.protocol,
            self._loop.time(),
            entrance.router,
            network,
            address,
        )
        if self._seats.has_room(guest.uid):
            self._take(guest)
            return
        self._waiting_room.add(guest)
        self._make_way(guest)
        if self._waiting_room:
            log.warning(
                "max_connections_reached",
                max_connections=self._limits.max_connections,
                uid=guest.uid,
            )
            self._look_after_guests()

    def _make_way(self, guest: Guest) -> None:
        """Ends a connection that gives way to a waiting guest, if there is one."""
        occupant = self._seats.gives_way(guest.uid, self._loop.time())
        if occupant is not None:
            occupant.give_way()  # and `_closed` lets a guest in

    def _look_after_guests(self) -> None:
        """Tries again, while there are guests: connections become silent for too long."""
        if self._guests_timer is None:
            self._guests_timer = self._loop.call_later(_GUESTS_AGAIN_S, self._make_way_for_all)

    def _make_way_for_all(self) -> None:
        self._guests_timer = None
        for guest in self._waiting_room.waiting():
            self._make_way(guest)
        if self._waiting_room:
            self._look_after_guests()

    def _take(self, guest: Guest) -> None:
        """Starts serving a connection."""
        # Others of its address may have come in while it waited.
        if self._is_one_too_many(guest.network, guest.address, guest.stream):
            guest.connection.close()
            return
        if guest.protocol.served_by != "connection":
            self._take_requests(guest)
            return
        connection = Connection(
            self._surroundings,
            guest.connection,
            guest.stream,
            guest.protocol,
            self._closed,
            guest.router,
            guest.address,
        )
        self._count(connection, guest)
        self._seats.add(connection, guest.uid, self._loop.time())
        self._connections.add(connection)
        self._all_closed.clear()
        self._connections_taken += 1
        connection.resume()

    def _take_requests(self, guest: Guest) -> None:
        connection = self._request_servers.connection(guest, self._requests_closed)
        self._count(connection, guest)
        self._seats.add(connection, guest.uid, self._loop.time())
        self._request_connections.add(connection)
        self._all_closed.clear()
        self._connections_taken += 1
        self._tasks.create_task(connection.run())

    def _is_one_too_many(self, network: Network | None, address: str | None, stream: str) -> bool:
        if network is None or address is None or self._network_connections.admits(network, address):
            return False
        log.warning("too_many_network_connections", stream=stream, addr=address)
        return True

    def _count(self, connection: Connection | RequestConnection, guest: Guest) -> None:
        """Counts a connection as one of its address, if it is of the network."""
        if guest.network is not None and guest.address is not None:
            self._network_connections.add(connection, guest.network, guest.address)

    def _closed(self, connection: Connection) -> None:
        """Removes a closed connection."""
        self._connections.discard(connection)
        self._network_connections.remove(connection)
        self._hello_timeout.ends(connection)
        self._stream_names.give_back(connection)
        self.producers.forget(connection)
        self._has_left(connection, connection)

    def _requests_closed(self, connection: RequestConnection) -> None:
        self._request_connections.discard(connection)
        self._network_connections.remove(connection)
        self._hello_timeout.ends(connection)
        self._has_left(connection, connection.sender)

    def _has_left(self, occupant: Occupant, reader: Reader) -> None:
        """Lets others in for a connection that has ended."""
        self._seats.remove(occupant)
        while (guest := self._waiting_room.take()) is not None:
            self._take(guest)
        self._note_if_all_closed()
        self._listeners.accept_again()
        self.admission.forget(reader)

    def _datagrams_closed(self, datagrams: DatagramSocket) -> None:
        self._datagram_sockets.discard(datagrams)
        self._note_if_all_closed()
        self.admission.forget(datagrams)

    def _open(self) -> list[Connection | RequestConnection | DatagramSocket]:
        return [*self._connections, *self._request_connections, *self._datagram_sockets]

    def _note_if_all_closed(self) -> None:
        if not (self._connections or self._request_connections or self._datagram_sockets):
            self._all_closed.set()

    def _has_room(self, stream: str) -> bool:
        return self._committer.has_room(stream, self._limits.max_pending_stream)

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
        files = self.followed_files()
        full_streams, full_uids = self._quotas.without_space()
        return Status(
            status=1,
            ok=not failing
            and not self.admission.is_full
            and not self._space.is_used_up
            and self._store.unusable is None,
            pid=os.getpid(),
            data=str(self._store.path),
            uptime_s=round(self._loop.time() - self._started_s, 1),
            streams=self._store.streams,
            connections=self.connections,
            max_connections=self._limits.max_connections,
            waiting_senders=self.admission.paused + len(self._waiting_room),
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
                dropped_datagrams=self._pressure_drops.datagrams,
                fallback_records=sum(router.overflowed for router in self._routers.values()),
            ),
            streams_at_max_bytes=full_streams[:FULL_MAX],
            uids_at_max_bytes=full_uids[:FULL_MAX],
            unsynced_streams=sorted(self._store.unsynced)[:FULL_MAX],
            unusable=str(self._store.unusable or ""),
            risks=self._store.risks,
            commit_flushes=self._store.commit_way.flushes,
            commit_flushes_reason=self._store.commit_way.reason,
            free_bytes=self._space.free,
            keep_free_bytes=self._space.kept,
            is_space_low=self._space.is_scarce,
            uids_at_share=self._space.users_without()[:FULL_MAX],
            datagram_queue=min(
                (each.queue_max for each in self._datagram_sockets if each.queue_max is not None),
                default=0,
            ),
            followed_files=len(files),
            files=files[:FILES_MAX],
        )
