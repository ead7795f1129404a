"""One sender's connection: turns what it sends into entries, and what is durable into acks.

Uses a non-blocking socket with the poller and the loop's writers, not an asyncio transport: a
transport that fails to write an ack closes the connection and loses the bytes not read yet.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import structlog

from logengine.errors import TooManyStreams
from logengine.format.producers import Producer, chunk_name
from logengine.format.record import Peer, peer_fields
from logengine.intake.admission import UNLIMITED, Room
from logengine.intake.answer_writer import AnswerWriter
from logengine.intake.connection_state import Happening, State, state_after
from logengine.intake.context import RECEIVE_BYTES, IntakeContext
from logengine.intake.credentials import OVERFLOW_UID, peer_of
from logengine.intake.in_order import InOrder, Outstanding
from logengine.intake.network import NETWORK_UID, bytes_waiting, log_fields
from logengine.intake.patience import Patience
from logengine.intake.router import Router
from logengine.intake.turns import ReadSize
from logengine.intake.waiting_room import SEND_AGAIN, TOO_MANY, sends_record
from logengine.protocols.wire import (
    BadHello,
    Chunk,
    Event,
    Flush,
    Hello,
    Lines,
    Malformed,
    PartsReceiver,
    StatusRequest,
    TooLarge,
    WireProtocol,
)
from logengine.store.pending import Entry, Sender

log = structlog.get_logger()

# How long parts of a line wait for the others, at least; at most twice as long.
_PARTS_WAIT_S = 5.0


class Connection:
    """A sender: a `Sender` for the committer, and a `Reader` of its socket for admission.

    Speaks `protocol`. The numbers are the sender's: that of the last record that arrived, and that
    of the last durable one. `on_closed` is called once, when the connection has ended. With a
    `router`, `stream` is the one whose room decides whether it is read. With an `address`, the
    sender is not on this host, and the kernel knows no user of it.
    """

    holds_parts = True

    def __init__(
        self,
        around: IntakeContext,
        connection: socket.socket,
        stream: str,
        protocol: WireProtocol,
        on_closed: Callable[["Connection"], None],
        router: Router | None = None,
        address: str | None = None,
    ) -> None:
        self._poller = around.poller
        self._admission = around.admission
        self._arrivals = around.arrivals
        self._producers = around.producers
        self._chunks = around.chunks
        self._seats = around.seats
        self._hello_timeout = around.hello_timeout
        self._max_record = around.max_record
        self._stream_names = around.stream_names
        self._status = around.status
        self._on_closed = on_closed
        self._socket = connection
        self._receiver = protocol.new_receiver(around.max_record, "stream", around.arrivals.now)
        self._parts: PartsReceiver | None = None
        if isinstance(self._receiver, PartsReceiver):
            self._parts = self._receiver
        self._parts_timer: asyncio.TimerHandle | None = None
        self._encode = protocol.answers
        self._answers = AnswerWriter(connection, self._encode.ack, self._on_answers_written)
        self._state = State.OPEN
        self._is_opened = False  # it has said a complete line
        self.peer = peer_of(connection) if address is None else Peer(address=address)
        self._peer_fields = peer_fields(self.peer)
        self.uid = OVERFLOW_UID if self.peer.uid is None else self.peer.uid
        self.is_of_network = address is not None
        if self.is_of_network:
            self.uid = NETWORK_UID
        self.heard_s = time.monotonic()  # when it was read last
        self._left_bytes: int | None = None  # that a stop still reads; None for all
        self.flow = self.uid
        self.read_size = ReadSize()
        self.stream = stream
        self._router = router
        self.is_routed = router is not None
        self._in_order = None if router is None else InOrder(self.uid, self.durable)
        self.producer: str | None = None
        self._arrived = 0
        self._durable = 0
        self._free_lines = 0  # empty lines that take no tokens of its quotas
        self._patience: Patience | None = None  # of a sender that wants answers, and never asks
        # Received after a hello that is not answered yet, or a chunk that there is no room for.
        self._held_back: Sequence[Event] = ()
        self._chunks_queued = 0
        self._accounted_bytes = 0  # the held bytes that admission knows about
        self._poller.enter(self.flow)

    @property
    def held_bytes(self) -> int:
        """How many bytes it keeps in memory that are not in an entry yet."""
        held_bytes = self._receiver.unfinished_bytes
        if self._held_back:
            held_bytes += sum(map(_held_bytes, self._held_back))
        return held_bytes

    def resume(self) -> None:
        """Resumes reading, whenever there is something to read."""
        if self._held_back:
            return
        if self._state.is_read and not self._poller.watches(self._socket):
            self._poller.add(self._socket, self)

    def pause(self) -> None:
        """Stops reading: the kernel's buffer fills up, and the sender blocks."""
        if self._poller.watches(self._socket):
            self._poller.remove(self._socket)

    def durable(self, number: int) -> None:
        """All records up to `number` are on disk: acknowledges them, if the sender wants acks."""
        if self._state.is_closed:
            return
        self._durable = max(self._durable, number)  # lines and chunks of a batch come in any order
        if self._answers.are_wanted:
            self._answers.ack(number)
        if self._patience is not None:
            self._patience.answered(self._poller.free_s())
        if self._state.is_ended:
            self._close_if_through()

    def fence(self) -> None:
        """Ends it in favour of a newer connection of the same producer.

        Its records that were already received stay queued, and are committed.
        """
        log.info("producer_fenced", stream=self.stream, producer=self.producer, uid=self.peer.uid)
        self._end_with(self._encode.error("fenced"))

    @property
    def is_numbered(self) -> bool:
        """Whether what it sends depends on what is stored: it has a welcome, or sends chunks."""
        if self._chunks_queued or (self._held_back and not self._state.is_greeting):
            return True
        return self.producer is not None and not self._state.is_greeting

    def send_away(self) -> None:
        """Ends it. The sender must repeat what was not acknowledged, as after a stop."""
        self._end_with(self._encode.goodbye("data_directory_replaced"))

    def stall(self) -> None:
        """Ends it because its unfinished record blocked all other senders for too long."""
        log.warning("stalled_sender_closed", stream=self.stream, **log_fields(self.peer))
        self._end_with(
            self._encode.error("stalled", expected="the rest of an unfinished record, in time")
        )

    @property
    def has_unread(self) -> bool:
        """Whether it has sent something that is not read yet."""
        with contextlib.suppress(OSError):
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        return False

    def give_way(self) -> None:
        """Ends it in favour of another user's connection: there are too many."""
        log.warning(
            "connection_gave_way",
            stream=self.stream,
            has_unread=self.has_unread,
            **log_fields(self.peer),
        )
        if self._sends_without_answers():
            self._end_with(self._encode.error(TOO_MANY, expected=SEND_AGAIN))
        else:
            self._end_with(self._encode.goodbye(TOO_MANY))

    def _sends_without_answers(self) -> bool:
        """Whether it has sent records, read or not, and no hello."""
        if self._answers.are_wanted or self._receiver.is_inside_hello:
            return False
        has_sent = self._is_opened or self._arrived > 0 or self.held_bytes > 0
        return has_sent or sends_record(self._socket, self._receiver)

    def end_hello(self) -> bool:
        """Ends it because its hello took too long. Returns False if it was kept from sending."""
        if not self._poller.watches(self._socket):
            return False
        log.warning("hello_timeout", **log_fields(self.peer))
        self._end_with(
            self._encode.error("hello_timeout", expected="the rest of the first line, in time")
        )
        return True

    def end_idle(self) -> None:
        """Ends it, unless it was kept from sending: it has sent nothing for too long."""
        if self._poller.watches(self._socket):
            log.info("idle_connection_closed", stream=self.stream, **log_fields(self.peer))
            self._on_end()

    def stop(self) -> None:
        """Reads what the sender has sent so far and nothing more; ends when that is durable."""
        if self._state.is_stopping or self._state.is_closed:
            return
        self._happens(Happening.STOP)
        # The sender cannot write any more; what is in the kernel's buffer is still read, even if
        # the sender is already gone.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
            if self.is_of_network and self._socket.family != socket.AF_UNIX:
                self._left_bytes = bytes_waiting(self._socket)  # TCP lets a sender go on
        if self._admission.room_for(self) is not None:
            self.resume()
        self._close_if_through()

    def close(self) -> None:
        """Closes the socket. Queued entries are still committed.

        For a sender that asked for no answers, end of file means that all is durable. If it is not,
        an error says so first.
        """
        if self._state.is_closed:
            return
        is_durable = self._durable >= self._arrived and not self.held_bytes
        if not (self._answers.are_wanted or is_durable):
            warning = self._encode.error(
                "not_durable",
                expected="that you send it all again: not all of it is known to be on disk",
            )
            with contextlib.suppress(OSError):  # the sender is gone, or does not read
                self._socket.send(warning)
        self._release()

    def _release(self) -> None:
        self._store_parts()
        self._happens(Happening.CLOSE)
        self.pause()
        self._answers.close()
        self._held_back = ()
        self._chunks.give_up(self)
        self._in_order = None
        if self._parts_timer is not None:
            self._parts_timer.cancel()
        self._receiver.drop_unfinished()
        self._account_for_held(finished=True)
        self._socket.close()
        self._poller.leave(self.flow)
        self._on_closed(self)

    def _wait_for_parts(self) -> None:
        if self._parts_timer is None and self._parts is not None and self._parts.has_parts:
            loop = asyncio.get_running_loop()
            self._parts_timer = loop.call_later(_PARTS_WAIT_S, self._on_parts_time)

    def _on_parts_time(self) -> None:
        self._parts_timer = None
        self._store_parts(old=True)
        self._wait_for_parts()

    def _store_parts(self, *, old: bool = False) -> None:
        """Takes parts of a line as they are: the others do not come, or have not come in time."""
        if self._parts is None or not self._parts.has_parts:
            return
        try:
            self._handle(self._parts.old_parts() if old else self._parts.parts())
            self._account_for_held(finished=True)
        except Exception:
            # No failure caused by one sender may stop the daemon or keep it busy.
            log.exception("connection_failed", stream=self.stream, pid=self.peer.pid)

    def _account_for_held(self, *, finished: bool) -> None:
        change_bytes = self.held_bytes - self._accounted_bytes
        if change_bytes or (finished and self._admission.has_elected):
            self._accounted_bytes += change_bytes
            self._admission.hold(self, change_bytes, finished=finished)

    def on_readable(self) -> int:
        """Reads once, if it may. Returns how many bytes it worked on."""
        try:
            return self._read()
        except Exception:
            # No failure caused by one sender may stop the daemon or keep it busy.
            log.exception("connection_failed", stream=self.stream, pid=self.peer.pid)
            self.close()
            return 0

    def _read(self) -> int:
        try:
            room_bytes = self._room_bytes()
            if not room_bytes:
                self.pause()
                self._admission.pause(self)
                return 0
            if self._left_bytes is not None:
                room_bytes = min(room_bytes, self._left_bytes)
            data = self._socket.recv(room_bytes)
            if self._left_bytes is not None:
                self._left_bytes -= len(data)
            if self.is_of_network:
                self.heard_s = time.monotonic()
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            data = b""  # reset by the sender; everything it had sent was read before this
        # Bytes of an unfinished record cost little now, and are worked on when it is complete.
        unfinished_bytes = self._receiver.unfinished_bytes
        worked_bytes = len(data) + unfinished_bytes
        events = self._receiver.receive(data) if data else []
        if data:
            if self._admission.asks_who_sends:
                self._charge_for_ignored(data, events, unfinished_bytes)
            if len(events) == 1 and isinstance(only := events[0], Lines):
                self._take_lines(only.chunk)  # almost always
            else:
                self._handle(events)
        else:
            self._on_end()
        has_finished = bool(events)
        self._account_for_held(finished=has_finished)
        self._note_progress(finished=has_finished)
        self._wait_for_parts()
        return worked_bytes if has_finished else len(data)

    def _note_progress(self, *, finished: bool) -> None:
        """Notes whether it has said something complete, or is still inside its hello."""
        if finished:
            self._seats.heard(self)
            if not self._is_opened:
                self._is_opened = True
                self._hello_timeout.ends(self)
        elif not (self._is_opened or self._state.is_closed) and self._receiver.is_inside_hello:
            self._hello_timeout.begins(self)

    def _charge_for_ignored(
        self, data: bytes, events: Sequence[Event], unfinished_bytes: int
    ) -> None:
        """Takes tokens of the quotas for bytes that became no record, and that no event is for.

        `unfinished_bytes` is how many were held before `data`. One empty line for each record is
        free: it may ask for a commit.
        """
        if data == b"\n" and not unfinished_bytes and self._free_lines:
            self._free_lines -= 1
            return
        chunks = [event.chunk for event in events if isinstance(event, Lines)]
        if len(chunks) < sum(not isinstance(event, Flush) for event in events):
            return  # a hello is free, and a refusal takes tokens itself
        ignored_bytes = unfinished_bytes + len(data) - self._receiver.unfinished_bytes
        ignored_bytes -= sum(map(len, chunks))
        if ignored_bytes > 0:
            lines = data.count(b"\n") - sum(chunk.count(b"\n") for chunk in chunks)
            # Records of another protocol may end without a newline.
            self._arrivals.discard(self, max(0, lines), ignored_bytes)

    def _room_bytes(self) -> int:
        """Returns how many bytes may be read now."""
        # After a stop, no more than the kernel's buffer is left to read.
        if self._answers.are_too_many and not self._state.is_stopping:
            return 0
        size_bytes = self.read_size.size_bytes
        room = self._admission.room_for(self)
        if room is not None:
            return size_bytes if room is UNLIMITED else self._bytes_in(room)
        # Only the first record says which stream it is for, and that stream may have room.
        is_new = self._receiver.awaits_opening
        may_finish = self._admission.may_finish_records(self)
        if not (is_new or may_finish):
            return 0
        waiting = self._socket.recv(RECEIVE_BYTES, socket.MSG_PEEK)
        if not waiting:
            return 1  # that is the end, and may be read at any time
        if is_new and self._admission.may_read_opening(self, self._receiver.opening(waiting)):
            return self._receiver.bytes_of(waiting, 1)
        return self._whole_bytes(waiting, size_bytes) if may_finish else 0

    def _whole_bytes(self, waiting: bytes, size_bytes: int) -> int:
        """Returns the size of the complete records in the first `size_bytes`, or of one more."""
        whole_bytes = self._receiver.whole_bytes(waiting[:size_bytes])
        if not whole_bytes and self._receiver.whole_bytes(waiting):
            return self._receiver.bytes_of(waiting, 1)
        return whole_bytes

    def _bytes_in(self, room: Room) -> int:
        """Returns how many waiting bytes fit `room`: at least one record, or a part of one."""
        room_bytes = int(min(room.size_bytes, self.read_size.size_bytes))
        if room.records == inf:
            return room_bytes
        waiting = self._socket.recv(room_bytes, socket.MSG_PEEK)
        # If nothing waits, this is end of file, and may be read.
        return self._receiver.bytes_of(waiting, max(1, int(room.records))) or 1

    def _on_end(self) -> None:
        self.pause()
        self._happens(Happening.END)
        self._store_parts()
        if self.producer is not None or (self._state.is_stopping and self._answers.are_wanted):
            # A producer sends half a record again, whole and under the same number. A sender that
            # gets acks knows which records a stop cut off.
            self._receiver.drop_unfinished()
        else:
            self._handle(self._receiver.end())
        self._ask_for_commit()  # it may wait for the end of file
        self._close_if_through()

    def _ask_for_commit(self) -> None:
        if self._durable < self._arrived:
            self._arrivals.commit_now()

    def _handle(self, events: Sequence[Event]) -> None:  # noqa: C901 - one case per event
        for position, event in enumerate(events):
            match event:
                case Lines(chunk):
                    self._take_lines(chunk)
                case TooLarge():
                    self._refuse_record()
                case Chunk():
                    if not self._take_chunk(event, events[position:]):
                        return
                case Malformed(reason):
                    self._end_malformed(reason)
                    return
                case Flush():
                    if self._answers.are_wanted:
                        self._ask_for_commit()
                case Hello():
                    if not self._greet(event, events[position + 1 :]):
                        return
                case BadHello(answer):
                    self._end_with(answer)
                    return
                case StatusRequest():
                    self._end_with(self._status_answer())
                    return

    def _status_answer(self) -> bytes:
        status = self._status(self.peer)
        if status is None:
            return self._encode.error(
                "not_allowed", found=self.peer.uid, expected="root or the daemon's user"
            )
        return self._encode.status(status)

    def _take_lines(self, chunk: bytes) -> None:
        if self._router is not None:
            self._take_routed(self._router, chunk)
            return
        arrived = self._arrivals.stamp(self, self._peer_fields, chunk)
        if self._admission.asks_who_sends:
            blank = chunk.count(b"\n") - arrived.numbers
            self._free_lines += max(0, arrived.numbers - blank)
        if not arrived.numbers:
            return
        self._add(arrived.body, arrived.records, arrived.numbers, arrived.timestamp)
        if arrived.over is not None and self._answers.are_wanted:
            first = self._arrived - (arrived.numbers - arrived.records) + 1
            self._answers.say(self._encode.over_quota(first, self._arrived, arrived.over))

    def _take_routed(self, router: Router, chunk: bytes) -> None:
        with self._arrivals.routed(router, self, self._peer_fields, chunk) as routed:
            if self._admission.asks_who_sends:
                blank = chunk.count(b"\n") - routed.numbers
                self._free_lines += max(0, routed.numbers - blank)
            if not routed.numbers:
                return
            if not routed.parts:
                self._add(b"", 0, routed.numbers, "")
                return
            self._arrived += routed.numbers
            sender = self._expect()
            for stream, arrived in routed.parts.items():
                sender.entries += 1
                entry = Entry(
                    arrived.body, arrived.records, arrived.timestamp, self._arrived, sender
                )
                self._arrivals.add(stream, entry)
        self.stream = self._admission.narrowest(routed.parts, self.uid)

    def _expect(self) -> Outstanding:
        assert self._in_order is not None, "a connection with a router that is open"
        return self._in_order.expect(self._arrived)

    def _refuse_record(self) -> None:
        self._arrivals.refuse(self, self.peer, self._max_record)
        self._add(b"", 0, 1, self._arrivals.timestamp())
        if self._answers.are_wanted:
            self._answers.say(self._encode.too_large(self._arrived, self._max_record))

    def go_on(self) -> bool:
        """Takes the chunks that had to wait. Returns whether it took one."""
        if self._state.is_closed:
            return False
        before = self._arrived
        held_back, self._held_back = self._held_back, ()
        try:
            self._handle(held_back)
            self._account_for_held(finished=True)
        except Exception:
            # No failure caused by one sender may stop the daemon or keep it busy.
            log.exception("connection_failed", stream=self.stream, pid=self.peer.pid)
            self.close()
            return False
        self.resume()
        return self._arrived > before

    def _take_chunk(self, chunk: Chunk, held_back: Sequence[Event]) -> bool:
        """Queues a chunk, unless it is known. Returns False if it, and `held_back`, must wait."""
        producer = Producer(self.uid, chunk_name(self.peer.pid or 0, chunk.digest))
        if not self._find_stream(chunk, producer):
            self.pause()
            self._held_back = held_back
            return False
        is_known = self._chunks.is_known(self.stream, producer)
        # Also if nothing of it is stored: without an answer it would be sent for ever.
        self._answers.are_wanted = True
        body, count, numbers, timestamp = b"", 0, 0, self._arrivals.timestamp()
        if is_known:
            self._arrivals.discard(self, chunk.lines.count(b"\n"), len(chunk.lines))
        else:
            body, count, numbers, timestamp, _ = self._arrivals.stamp(
                self, self._peer_fields, chunk.lines
            )
            numbers += chunk.too_large
            for _ in range(chunk.too_large):
                self._arrivals.refuse(self, self.peer, self._max_record)
        self._arrived += max(1, numbers)
        self._chunks_queued += 1
        outstanding = None
        if self._router is not None:
            outstanding = self._expect()
            outstanding.entries += 1
        queued = self._chunks.queue(
            self.stream,
            producer,
            partial(self._chunk_durable, self._arrived, chunk.answer, outstanding),
        )
        name = producer.name if numbers else None
        entry = Entry(body, count, timestamp if numbers else "", numbers, queued, name)
        self._arrivals.add(self.stream, entry, is_awaited=True)
        if self._router is not None:
            self._router.give_back(self)
        return True

    def _find_stream(self, chunk: Chunk, producer: Producer) -> bool:
        """Sets `stream` to that of a chunk. Returns False if it may not be queued there now."""
        if self._router is None:
            return self._chunks.may_queue(self)
        # A chunk whose stream was one too many is in the fallback stream. If it is sent again
        # after a restart, there may be room for its stream.
        self.stream = fallback = self._router.fallback
        if not self._chunks.may_look(self):
            return False
        if self._chunks.is_known(fallback, producer):
            return self._chunks.may_queue(self)
        wanted = self._router.stream_of_chunk(chunk.lines, peer_fields(Peer(uid=self.uid)))
        records = chunk.lines.count(b"\n")
        # The name is given back once the chunk is queued: until then, nothing else keeps it.
        if wanted != fallback and self._router.take(self, wanted, self.uid, records):
            self.stream = wanted
        return self._chunks.may_queue(self)

    def _chunk_durable(self, number: int, answer: bytes, outstanding: Outstanding | None) -> None:
        """A chunk, and all records up to `number`, are on disk: answers the chunk."""
        self._chunks_queued -= 1
        if self._state.is_closed:
            return
        if self._answers.are_wanted:
            self._answers.say(answer)
        if outstanding is None:
            self.durable(number)
        else:
            outstanding.durable(number)

    def _end_malformed(self, reason: str) -> None:
        log.warning(
            "malformed_input",
            stream=self.stream,
            reason=reason,
            **log_fields(self.peer),
        )
        self._end_with(b"")

    def _add(self, body: bytes, count: int, numbers: int, timestamp: str) -> None:
        is_awaited = self._patience is not None and self._patience.waits(
            self._poller.free_s(),
            is_outstanding=self._durable < self._arrived,
            commit_s=self._arrivals.commit_s,
        )
        self._arrived += numbers
        sender: Sender = self
        stream = self.stream
        if self._router is not None:
            sender = self._expect()
            sender.entries += 1
            stream = self._router.fallback
        self._arrivals.add(
            stream,
            Entry(body, count, timestamp, self._arrived, sender, self.producer),
            is_awaited=is_awaited,
        )

    def _greet(self, hello: Hello, after: Sequence[Event]) -> bool:
        """Answers a hello. Returns False if the answer, and the events `after` it, must wait."""
        stream = hello.stream or self.stream
        try:
            self._stream_names.take(self, stream, self.uid)
        except TooManyStreams as error:
            self._end_with(
                self._encode.error("too_many_streams", found=stream, expected=str(error))
            )
            return False
        self.stream = stream
        self._answers.are_wanted = True
        if not hello.flush:
            self._patience = Patience()
        if hello.producer is None:
            self._welcome()
            return True
        self._happens(Happening.HELLO)
        self.pause()
        self._held_back = after
        self.producer = hello.producer
        self._producers.greet(self, hello.first)
        return False

    def welcome_producer(self, next_number: int, known: int) -> None:
        """Lets a producer start at `next_number`; `known` is its last number that is known.

        Everything up to `known` is durable.
        """
        if self._state.is_closed:
            return
        self._happens(Happening.WELCOME)
        self._arrived = self._durable = next_number - 1
        self._welcome(known)
        held_back, self._held_back = self._held_back, ()
        self._handle(held_back)
        self._account_for_held(finished=bool(held_back))
        self.resume()
        self._close_if_through()

    def _welcome(self, known: int | None = None) -> None:
        self._answers.say(self._encode.welcome(self._arrived + 1, self._max_record, known))

    def _on_answers_written(self) -> None:
        self._admission.let_go_on(self)
        self._close_if_through()

    def _end_with(self, answer: bytes) -> None:
        if self._state.is_closed:
            return
        self._answers.say(answer)
        self._release()

    def _close_if_through(self) -> None:
        state = self._state
        if state.is_closed or not state.is_ended or state.is_greeting:
            return
        if self._durable < self._arrived:
            return
        if state.is_stopping and self._answers.are_wanted:
            self._answers.say_last(self._encode.goodbye("stopping"))
        if state.is_stopping or not self._answers.is_blocked:
            self.close()

    def _happens(self, happening: Happening) -> None:
        self._state = state_after(self._state, happening)


def _held_bytes(event: Event) -> int:
    if isinstance(event, Lines):
        return len(event.chunk)
    return len(event.lines) if isinstance(event, Chunk) else 0
