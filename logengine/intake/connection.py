"""One connection of an NDJSON sender: what it sends becomes entries, what is durable an ack.

Works on a non-blocking socket with a poller and the loop's writers, and not on a transport:
a transport that cannot write an ack closes the connection, and what its sender had still
sent would be lost unread.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import structlog

from logengine.errors import TooManyStreams
from logengine.format.record import envelope, peer_fields, stamp
from logengine.intake.credentials import peer_of
from logengine.protocols.ndjson import (
    BadHello,
    Event,
    Hello,
    Lines,
    NdjsonReceiver,
    StatusRequest,
    TooLarge,
    ack_answer,
    error_answer,
    goodbye_answer,
    over_quota_answer,
    too_large_answer,
    welcome_answer,
)
from logengine.store.pending import Entry

if TYPE_CHECKING:
    from logengine.intake.server import Server

log = structlog.get_logger()

RECEIVE_BYTES = 256 * 1024
# To a sender that does not read its answers, no more than these wait; then it is not read.
ANSWERS_BYTES_MAX = 64 * 1024
NOT_DURABLE = error_answer(
    "not_durable", expected="what you sent once more: not all of it is known to be on disk"
)
_OVERFLOW_UID = 65534  # whom the kernel names where it cannot tell the user


class Connection:
    """A sender, as the committer's `Sender` and as a reader of its socket.

    Numbers are the sender's: of the last record that arrived, and of the last durable one.
    """

    def __init__(self, server: "Server", connection: socket.socket, stream: str) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._poller = server.poller
        self._socket = connection
        self._receiver = NdjsonReceiver(server.limits.max_record)
        self.peer = peer_of(connection)
        self._peer_fields = peer_fields(self.peer)
        self.uid = _OVERFLOW_UID if self.peer.uid is None else self.peer.uid
        self.stream = stream
        self.producer: str | None = None
        self._arrived = 0
        self._durable = 0
        self._answers_wanted = False
        self._answers = bytearray()
        self._ack_due = 0
        self._held_back: Sequence[Event] = ()  # arrived behind a hello that is not answered yet
        self._accounted_bytes = 0  # of those held, what the server knows of
        self._greeting = False
        self._reading = False
        self._writing = False
        self._ended = False  # nothing more will arrive
        self._stopping = False
        self.closed = False

    @property
    def held_bytes(self) -> int:
        """How many bytes it keeps in memory that no entry holds yet."""
        held_bytes = self._receiver.unfinished_bytes
        if self._held_back:
            held_bytes += sum(
                len(event.chunk) for event in self._held_back if isinstance(event, Lines)
            )
        return held_bytes

    def resume(self) -> None:
        """Reads on, as soon as something is there."""
        if not (self._reading or self._ended or self._greeting or self.closed):
            self._reading = True
            self._poller.add(self._socket, self._on_readable)

    def pause(self) -> None:
        """Stops reading: the kernel's buffer fills up, and the sender blocks."""
        if self._reading:
            self._reading = False
            self._poller.remove(self._socket)

    def durable(self, number: int) -> None:
        """All records up to `number` are on disk: says so, if the sender asked for it."""
        if self.closed:
            return
        self._durable = number
        if self._answers_wanted:
            self._ack_due = number
            self._send_answers()
        if self._ended:
            self._close_if_through()

    def fence(self) -> None:
        """Ends it in favour of a newer connection of the same producer.

        What it had delivered stays queued, and is committed.
        """
        log.info("producer_fenced", stream=self.stream, producer=self.producer)
        self._end_with(error_answer("fenced"))

    @property
    def is_numbered(self) -> bool:
        """Whether it was told from where on to send, by what is stored under its name."""
        return self.producer is not None and not self._greeting

    def send_away(self) -> None:
        """Ends it; what no ack passed is to be sent again, as after a stop."""
        self._end_with(goodbye_answer("data_directory_replaced"))

    def stall(self) -> None:
        """Ends it because its unfinished record held up everybody else for too long."""
        log.warning(
            "stalled_sender_closed", stream=self.stream, pid=self.peer.pid, uid=self.peer.uid
        )
        self._end_with(
            error_answer("stalled", expected="the rest of a record that was begun, in time")
        )

    def stop(self) -> None:
        """Takes what the sender has sent so far, and no more; then ends when it is durable."""
        if self._stopping or self.closed:
            return
        self._stopping = True
        # The sender can write no more; what is in the kernel's buffer is read. If it is gone
        # already, what it left is read all the same.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        if self._server.may_read(self):
            self.resume()
        self._close_if_through()

    def close(self) -> None:
        """Gives the socket back; queued entries are committed all the same.

        To a sender that asked for no answers end of file says that all is durable. Where it is
        not, that sender is told so before.
        """
        if self.closed:
            return
        is_durable = self._durable >= self._arrived and not self.held_bytes
        if not (self._answers_wanted or is_durable):
            with contextlib.suppress(OSError):  # nobody hears it
                self._socket.send(NOT_DURABLE)
        self._release()

    def _release(self) -> None:
        self.closed = True
        self._ended = True
        self.pause()
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._held_back = ()
        self._receiver.drop_unfinished()
        self._account_for_held(finished=True)
        self._socket.close()
        self._server.closed(self)

    def _account_for_held(self, *, finished: bool) -> None:
        change_bytes = self.held_bytes - self._accounted_bytes
        if change_bytes or finished:
            self._accounted_bytes += change_bytes
            self._server.held(self, change_bytes, finished=finished)

    def _on_readable(self) -> None:
        try:
            self._read()
        except Exception:
            # Whatever one sender brought about is not to end, or to occupy, the daemon.
            log.exception("connection_failed", stream=self.stream, pid=self.peer.pid)
            self.close()

    def _read(self) -> None:
        try:
            room_bytes = self._room_bytes()
            if not room_bytes:
                self.pause()
                self._server.paused(self)
                return
            data = self._socket.recv(room_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""  # reset by the sender; all that it had sent was read before this
        events = self._receiver.receive(data) if data else []
        if data:
            self._handle(events)
        else:
            self._on_end()
        self._account_for_held(finished=bool(events))

    def _room_bytes(self) -> int:
        """How much may be read now."""
        # What a stop leaves to be read is no more than the kernel's buffer.
        if len(self._answers) > ANSWERS_BYTES_MAX and not self._stopping:
            return 0
        if self._server.may_read(self):
            return self._room_in_quotas() if self._server.quotas.are_set else RECEIVE_BYTES
        # Only its first line says which stream it is for, and that one may have room.
        is_new = not (self._arrived or self._answers_wanted)
        may_finish = self._server.may_finish_records(self)
        if not (is_new or may_finish):
            return 0
        waiting = self._socket.recv(RECEIVE_BYTES, socket.MSG_PEEK)
        if not waiting:
            return 1  # that is the end, and may be read at any time
        if is_new and self._server.may_read_first_line(self, waiting):
            return waiting.find(b"\n") + 1 or len(waiting)
        return waiting.rfind(b"\n") + 1 if may_finish else 0

    def _room_in_quotas(self) -> int:
        """How much of what may be read the quotas let through; at least one record, or a part."""
        records, size_bytes = self._server.quota_room(self)
        room_bytes = int(min(size_bytes, RECEIVE_BYTES))
        if records == inf:
            return room_bytes
        waiting = self._socket.recv(room_bytes, socket.MSG_PEEK)
        lines_max = max(1, int(records))
        parts = waiting.split(b"\n", lines_max)
        behind_bytes = len(parts[-1]) if len(parts) > lines_max else 0
        return len(waiting) - behind_bytes or 1  # nothing waits: that is the end

    def _on_end(self) -> None:
        self.pause()
        self._ended = True
        if self.producer is not None or (self._stopping and self._answers_wanted):
            # Half a record of a producer comes again, whole, under the same number; and
            # whoever is told how far it came knows that a stop cut it off.
            self._receiver.drop_unfinished()
        else:
            self._handle(self._receiver.end())
        self._close_if_through()

    def _handle(self, events: Sequence[Event]) -> None:
        for position, event in enumerate(events):
            match event:
                case Lines(chunk):
                    self._take_lines(chunk)
                case TooLarge():
                    self._refuse_record()
                case Hello():
                    if not self._greet(event, events[position + 1 :]):
                        return
                case BadHello(answer):
                    self._end_with(answer)
                    return
                case StatusRequest():
                    self._end_with(self._server.status(self.peer))
                    return

    def _take_lines(self, chunk: bytes) -> None:
        timestamp = self._server.timestamp()
        body, count = stamp(chunk, envelope(timestamp, self._peer_fields))
        if not count:
            return
        admitted = self._server.quotas.admit(self, body, count)
        self._add(admitted.body, admitted.records, count, timestamp)
        if admitted.over is not None and self._answers_wanted:
            first = self._arrived - (count - admitted.records) + 1
            self._answers += over_quota_answer(first, self._arrived, admitted.over)
            self._send_answers()

    def _refuse_record(self) -> None:
        limit = self._server.limits.max_record
        log.warning(
            "record_too_large",
            stream=self.stream,
            limit=limit,
            pid=self.peer.pid,
            uid=self.peer.uid,
            comm=self.peer.comm,
        )
        self._server.totals.refused += 1
        self._add(b"", 0, 1, self._server.timestamp())
        if self._answers_wanted:
            self._answers += too_large_answer(self._arrived, limit)
            self._send_answers()

    def _add(self, body: bytes, count: int, numbers: int, timestamp: str) -> None:
        self._arrived += numbers
        self._server.committer.add(
            self.stream, Entry(body, count, timestamp, self._arrived, self, self.producer)
        )

    def _greet(self, hello: Hello, behind: Sequence[Event]) -> bool:
        """Answers a hello; False if that must wait, and what came `behind` with it."""
        stream = hello.stream or self.stream
        try:
            self._server.admit(stream)
        except TooManyStreams as error:
            self._end_with(error_answer("too_many_streams", found=stream, expected=str(error)))
            return False
        self.stream = stream
        self._answers_wanted = True
        if hello.producer is None:
            self._welcome()
            return True
        self._greeting = True
        self.pause()
        self._held_back = behind
        self.producer = hello.producer
        self._server.greet(self, hello)
        return False

    def welcome_producer(self, next_number: int) -> None:
        """Lets a producer begin at `next_number`, once all that is before it is durable."""
        if self.closed:
            return
        self._greeting = False
        self._arrived = self._durable = next_number - 1
        self._welcome()
        behind, self._held_back = self._held_back, ()
        self._handle(behind)
        self._account_for_held(finished=bool(behind))
        self.resume()
        self._close_if_through()

    def _welcome(self) -> None:
        self._answers += welcome_answer(self._arrived + 1, self._server.limits.max_record)
        self._send_answers()

    def _send_answers(self) -> None:
        """Sends what is due without blocking; of acks, only ever the latest."""
        if self._writing:
            return
        while True:
            if self._ack_due and not self._answers:
                self._answers += ack_answer(self._ack_due)
                self._ack_due = 0
            if not self._answers:
                break
            try:
                sent = self._socket.send(self._answers)
            except (BlockingIOError, InterruptedError):
                self._writing = True
                self._loop.add_writer(self._socket, self._on_writable)
                return
            except OSError:
                # Nobody hears any more; what was sent is read and committed even so.
                self._answers_wanted = False
                self._answers.clear()
                self._ack_due = 0
                return
            del self._answers[:sent]

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self._writing = False
        self._send_answers()
        if not self._writing:
            self._server.room(self)
            self._close_if_through()

    def _end_with(self, answer: bytes) -> None:
        if self.closed:
            return
        self._answers += answer
        self._ended = True
        self._send_answers()
        self._release()

    def _close_if_through(self) -> None:
        if self.closed or not self._ended or self._greeting or self._durable < self._arrived:
            return
        if self._stopping and self._answers_wanted:
            self._answers_wanted = False
            self._answers += goodbye_answer("stopping")
            self._send_answers()
        if self._stopping or not self._writing:
            self.close()
