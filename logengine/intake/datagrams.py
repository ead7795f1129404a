"""Reads a datagram socket. Each datagram is complete, and the kernel names its sender.

A datagram cannot be held back once it is read. So the socket is not read while there is no room;
the kernel's queue then fills up, and senders block or get EAGAIN. If the socket is to drop, it is
read, and what there is no room for is dropped. Else a datagram that was read is dropped only for a
quota that drops, or if it is too long.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import structlog

from logengine.errors import MalformedInput
from logengine.format.record import Peer, peer_fields
from logengine.intake.admission import ANY_STREAM
from logengine.intake.context import RECEIVE_BYTES, IntakeContext
from logengine.intake.credentials import (
    ANCILLARY_BYTES,
    OVERFLOW_UID,
    Ancillary,
    ask_for_senders,
    credentials_in,
    packed_credentials_in,
    sender_of,
)
from logengine.intake.listeners import datagram_queue_max
from logengine.intake.memory_files import MemoryFiles
from logengine.intake.network import NETWORK_UID, address_text
from logengine.intake.router import Router
from logengine.intake.turns import ReadSize
from logengine.protocols.wire import Event, Lines, Receiver, TooLarge, WireProtocol
from logengine.store.pending import Entry

log = structlog.get_logger()

_DATAGRAMS_PER_READ = 64
_RETRY_PAUSE_S = 0.5
# Looking a process up in /proc takes ten times as long as everything else for a datagram. Senders
# are cached only briefly, because a new process may get the pid of one that exited.
_SENDERS_KEPT_S = 0.1
_SENDERS_KEPT_MAX = 1024
# As a number: an `or` of the two for each datagram would take a third of the call's time.
_RECEIVE_FLAGS = int(socket.MSG_TRUNC | socket.MSG_CMSG_CLOEXEC)


@dataclass(frozen=True)
class _Sender:
    """A sender of datagrams, as the committer's `Sender`. It gets no answers."""

    stream: str
    uid: int
    peer: Peer
    peer_fields: bytes

    def durable(self, number: int) -> None:
        """Does nothing: a sender of datagrams gets no acks."""


class DatagramSocket:
    """Reads the datagrams of all senders to one socket; a `Reader` for admission.

    Refuses a datagram, or a memory file, that is longer than both `max_record` and `RECEIVE_BYTES`.
    `on_closed` is called once, when the socket is closed. If it `drops`, a datagram that there is
    no room for is dropped, and not left in the queue. With a `router`, `stream` is the one whose
    room decides whether it is read; if it also drops, each datagram's own streams decide.
    """

    holds_parts = False  # each datagram is read whole

    def __init__(
        self,
        around: IntakeContext,
        receiving: socket.socket,
        stream: str,
        protocol: WireProtocol,
        on_closed: Callable[["DatagramSocket"], None],
        *,
        inherited: bool,
        drops: bool = False,
        router: Router | None = None,
    ) -> None:
        self._poller = around.poller
        self._admission = around.admission
        self._arrivals = around.arrivals
        self._max_record = around.max_record
        self._socket = receiving
        self._drops = drops
        self._pressure_drops = around.pressure_drops
        self._router = router
        self._protocol = protocol
        self._receiver = self._new_receiver()
        self._on_closed = on_closed
        self._is_inherited = inherited
        # The limit was that of the network namespace in which systemd made the socket, and then.
        self.queue_max = None if inherited else datagram_queue_max()
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(max(around.max_record, RECEIVE_BYTES)))
        self._senders: dict[bytes, _Sender] = {}  # by their credentials, as the kernel packs them
        self._senders_at: dict[str, _Sender] = {}  # in the network
        self._senders_until_s = 0.0
        self._gathered: list[bytes] = []  # lines of one sender, to be stamped together
        self._gathered_of: _Sender | None = None
        self._taken_bytes = 0  # by the current read
        self._retry: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._is_closed = False
        self.flow = self  # its next datagram may be any user's
        self.read_size = ReadSize()
        self._own_stream = stream
        self._drops_by_stream = drops and router is not None
        self.stream = ANY_STREAM if self._drops_by_stream else stream
        self.uid = OVERFLOW_UID  # of the next datagram's sender, if there are quotas
        self.held_bytes = 0
        self._memory_files = MemoryFiles(receiving) if protocol.takes_memory_files else None
        # The network knows no users, only addresses.
        self._is_of_network = receiving.family != socket.AF_UNIX
        self._left_bytes = inf  # that a stop still reads
        receiving.setblocking(False)
        if self._is_of_network:
            self.queue_max = None
            self.uid = NETWORK_UID
        else:
            ask_for_senders(receiving)
        self._poller.enter(self.flow)

    @property
    def is_routed(self) -> bool:
        """Whether its records go to several streams."""
        return self._router is not None

    def is_of(self, receiving: socket.socket) -> bool:
        """Whether it reads from this socket."""
        return self._socket is receiving

    def resume(self) -> None:
        """Resumes reading, whenever there is something to read."""
        if not (self._is_closed or self._poller.watches(self._socket)):
            self._poller.add(self._socket, self)

    def stall(self) -> None:
        """Does nothing: it never holds part of a record, and so is never elected."""

    def stop(self) -> None:
        """Reads what is in the kernel's queue and nothing more; then closes the socket.

        An inherited socket keeps its queue for the next daemon.
        """
        if self._is_inherited or self._is_closed:
            self.close()
            return
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)  # later senders get EPIPE
        if self._is_of_network:  # others may go on sending
            self._left_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.resume()
        self.on_readable()

    def close(self) -> None:
        """Closes the socket. What was read is still committed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        self._socket.close()
        self._poller.leave(self.flow)
        self._on_closed(self)

    def _pause(self) -> None:
        if self._poller.watches(self._socket):
            self._poller.remove(self._socket)

    def on_readable(self) -> int:
        """Reads some datagrams. Returns how many bytes they had."""
        self._taken_bytes = 0
        try:
            try:
                self._read()
            finally:
                self._add_gathered()
        except BlockingIOError:
            if self._is_stopping:
                self.close()  # nothing is left in the queue
        except OSError as error:
            # Possibly out of memory: what waits in the kernel's queue is read later.
            log.error(
                "receive_failed",
                stream=self._own_stream,
                error=str(error),
                retry_in_s=_RETRY_PAUSE_S,
            )
            self._pause()
            self._retry = self._loop.call_later(_RETRY_PAUSE_S, self.resume)
        except Exception:
            # No failure caused by one datagram may stop the daemon or keep it busy.
            log.exception("datagram_failed", stream=self._own_stream)
            self._receiver = self._new_receiver()
        return self._taken_bytes

    def _read(self) -> None:
        """Reads some datagrams. Raises `BlockingIOError` when there are no more."""
        for _ in range(_DATAGRAMS_PER_READ):
            if self._taken_bytes >= self.read_size.size_bytes:
                return
            if self._left_bytes <= 0:
                raise BlockingIOError  # what is here now came after the stop
            if self._is_stopping or self._admission.asks_who_sends:
                self._look_at_next()
            is_dropped = False
            if not self._may_read():
                # At a stop, nobody sends any more: what is in the queue can wait for room.
                is_dropped = self._drops and not self._is_stopping
                if not is_dropped:
                    self._pause()
                    self._admission.pause(self)
                    return
            self._receive(is_dropped=is_dropped)

    def _receive(self, *, is_dropped: bool) -> None:
        """Reads one datagram, or drops it. Raises `BlockingIOError` if there is none."""
        files = self._memory_files
        # MSG_TRUNC returns the size that was sent, even if the buffer is shorter.
        size_bytes, ancillary, flags, address = self._socket.recvmsg_into(
            [self._buffer],
            ANCILLARY_BYTES + (files.ancillary_bytes if files else 0),
            _RECEIVE_FLAGS,
        )
        refusal = ""
        if files is not None:
            try:
                # What is dropped is closed, but not read.
                buffer = self._buffer[:0] if is_dropped else self._buffer
                size_bytes = files.take(ancillary, flags, size_bytes, buffer)
            except MalformedInput as error:
                refusal = str(error)
        self._left_bytes -= size_bytes + 1  # an empty one counts too
        if is_dropped:
            self._taken_bytes += size_bytes
            uid = NETWORK_UID if self._is_of_network else credentials_in(ancillary).uid
            self._pressure_drops.add(self._own_stream, uid, size_bytes)
            return
        sender = (
            self._sender_at(address_text(address))
            if self._is_of_network
            else self._sender_of(ancillary)
        )
        if refusal:
            self._arrivals.datagrams += 1
            self._arrivals.refuse_file(sender, sender.peer, refusal)
            return
        self._taken_bytes += size_bytes
        self._take(sender, size_bytes)

    def _new_receiver(self) -> Receiver:
        return self._protocol.new_receiver(self._max_record, "datagram", self._arrivals.now)

    def _may_read(self) -> bool:
        return self._admission.room_for(self) is not None or self._admission.may_finish_records(
            self
        )

    def _look_at_next(self) -> None:
        """Notes the sender of the next datagram, which stays in the queue."""
        _, ancillary, _, _ = self._socket.recvmsg(0, ANCILLARY_BYTES, socket.MSG_PEEK)
        if not self._is_of_network:
            self.uid = credentials_in(ancillary).uid

    def _take(self, sender: _Sender, size_bytes: int) -> None:
        """Processes a datagram of `size_bytes`, which is in the buffer unless it is too long."""
        if size_bytes > len(self._buffer):
            self._arrivals.datagrams += 1
            self._arrivals.refuse(sender, sender.peer, len(self._buffer))
            return
        data = bytes(self._buffer[:size_bytes])
        events = self._receiver.receive(data)
        events += self._receiver.end()
        if self._lacks_room(sender, events):
            self._pressure_drops.add(self._own_stream, sender.uid, size_bytes)
            return
        self._arrivals.datagrams += 1
        if not events:
            self._arrivals.discard(sender, 1, size_bytes)
        for event in events:
            if isinstance(event, Lines):
                self._gather(sender, event.chunk)
            elif isinstance(event, TooLarge):
                self._arrivals.refuse(sender, sender.peer, self._max_record)

    def _lacks_room(self, sender: _Sender, events: Sequence[Event]) -> bool:
        """Whether to drop a datagram: one of the streams that it would go to has no room for it."""
        if self._router is None or not self._drops_by_stream or self._is_stopping:
            return False
        if not self._admission.may_lack_room:
            return False
        lines = b"".join(event.chunk for event in events if isinstance(event, Lines))
        streams = self._arrivals.streams_of(self._router, sender.peer_fields, lines, sender.uid)
        return not all(self._admission.may_add(stream, sender.uid) for stream in streams)

    def _gather(self, sender: _Sender, chunk: bytes) -> None:
        """Collects consecutive lines of one sender; with quotas, queues them immediately."""
        if sender is not self._gathered_of:
            self._add_gathered()
            self._gathered_of = sender
        self._gathered.append(chunk)
        if self._admission.asks_who_sends:
            self._add_gathered()

    def _add_gathered(self) -> None:
        sender, chunks = self._gathered_of, self._gathered
        self._gathered_of, self._gathered = None, []
        if sender is None:
            return
        if self._router is not None:
            self._add_routed(self._router, sender, b"".join(chunks))
            return
        arrived = self._arrivals.stamp(sender, sender.peer_fields, b"".join(chunks))
        if arrived.records:
            self._arrivals.add(
                self.stream, Entry(arrived.body, arrived.records, arrived.timestamp, 0, sender)
            )

    def _add_routed(self, router: Router, sender: _Sender, chunk: bytes) -> None:
        with self._arrivals.routed(router, sender, sender.peer_fields, chunk) as routed:
            for stream, arrived in routed.parts.items():
                entry = Entry(arrived.body, arrived.records, arrived.timestamp, 0, sender)
                self._arrivals.add(stream, entry)
        if routed.parts and not self._drops_by_stream:
            self.stream = self._admission.narrowest(routed.parts, sender.uid)

    def _sender_at(self, address: str) -> _Sender:
        sender = self._senders_at.get(address)
        if sender is None:
            if len(self._senders_at) >= _SENDERS_KEPT_MAX:
                self._senders_at.clear()
            peer = Peer(address=address)
            sender = _Sender(self._own_stream, NETWORK_UID, peer, peer_fields(peer))
            self._senders_at[address] = sender
        return sender

    def _sender_of(self, ancillary: Ancillary) -> _Sender:
        packed = packed_credentials_in(ancillary)
        now_s = self._loop.time()
        if now_s >= self._senders_until_s:
            self._senders_until_s = now_s + _SENDERS_KEPT_S
            self._senders.clear()
        sender = self._senders.get(packed)
        if sender is None:
            if len(self._senders) >= _SENDERS_KEPT_MAX:
                self._senders.clear()
            peer = sender_of(ancillary)
            uid = credentials_in(ancillary).uid
            sender = _Sender(self._own_stream, uid, peer, peer_fields(peer))
            self._senders[packed] = sender
        return sender
