"""The senders: named producers that reconnect until all is acknowledged, and all others.

Each is a state machine at the client's end of simulated sockets. What it sends, in which
pieces, and when it hangs up, is drawn.
"""

import json
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.simulation.clock import Kernel
from tests.simulation.oracle import Oracle, Sent, Violation
from tests.simulation.sockets import End, Listener, Network

NAMED, ANSWERED, NAMELESS, ASKING = "named", "answered", "nameless", "asking"
# The errors that say to a sender without a hello that end of file does not mean durable.
_UNKNOWN_WHAT_IS_DURABLE = (b'"stalled"', b'"not_durable"', b'"error":"too_many_connections"')
_NO_CONNECTION_S = 0.004
_PAYLOAD = b"x" * 4096


@dataclass(frozen=True)
class SenderPlan:
    """What one sender does; `bursts` are (seconds of pause before it, sizes of its records)."""

    number: int
    kind: str
    stream: str
    bursts: tuple[tuple[float, tuple[int, ...]], ...]
    refused: frozenset[int]
    begins_s: float
    piece_bytes: int  # about; 0 means everything in one piece
    hangs_up: float  # probability after a burst of a connection
    half_closes: float  # probability at its end
    tells_first: float
    waits_for_ack: float
    read_s: float  # how late it reads its answers
    uid: int
    asks: float = 0.0  # probability of an empty line after a burst, which asks for a commit
    producer: str = ""  # a named one's name; others of its stream, of another uid, may have it too
    ends_open: bool = False  # its last record has no newline; end of file ends it

    @cached_property
    def records(self) -> int:
        return sum(len(sizes) for _, sizes in self.bursts)

    def __str__(self) -> str:
        return f"sender {self.number}: {self.kind} to {self.stream}, {self.records} records"


class Outside:
    """What senders need from the world."""

    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        listener: Listener,
        oracle: Oracle,
        guarded: Callable[[Callable[..., Any]], Callable[..., None]],
        max_record: int,
        buffer_bytes: int,
    ) -> None:
        self.kernel = kernel
        self.network = network
        self.listener = listener
        self.oracle = oracle
        self.guarded = guarded
        self.max_record = max_record
        self.buffer_bytes = buffer_bytes
        self.is_listening = False
        self.lives = 0  # how many daemons have run
        self.daemon: object = self  # the running one
        self.by_end: dict[int, Connection] = {}


class Connection:
    """One connection of a sender, from its first byte to its end."""

    def __init__(self, sender: "Sender", outside: Outside) -> None:
        self.sender = sender
        self.outside = outside
        self.life = outside.lives
        self.client, self.server = outside.network.connect(outside.listener, outside.buffer_bytes)
        self.server.uid = sender.plan.uid
        self.client.on_event = self._on_event
        self.server.on_sent = outside.guarded(self._on_sent)
        self.server.on_closed = outside.guarded(self._on_server_closed)
        outside.by_end[self.server.number] = self
        self._outgoing = bytearray()
        self._answered = bytearray()
        self._read = bytearray()
        self.sent: Sent = sender.sent
        self.sent_up_to = 0  # numbers in transit, or in the daemon
        self.is_welcomed = False
        self.is_over = False
        self.is_half_closed = False
        self.was_warned = False
        self.was_cut_off = False  # part of it did not reach the daemon
        self.dropped: set[int] = set()  # by a quota, and not reported to it yet
        self._write_is_due = False
        self._read_at = 0.0

    def write(self, data: bytes) -> None:
        """Sends in pieces, as the socket accepts them."""
        self._outgoing += data
        self._push()

    @property
    def is_flushed(self) -> bool:
        return not self._outgoing

    def _push(self) -> None:
        if self._write_is_due or self.is_over:
            return
        outside, plan = self.outside, self.sender.plan
        while self._outgoing:
            piece = len(self._outgoing)
            if plan.piece_bytes:
                piece = min(piece, 1 + int(self.sender.source.expovariate(1 / plan.piece_bytes)))
            try:
                count = self.client.send(self._outgoing[:piece])
            except BlockingIOError:
                return  # the other end notifies this one when it reads
            except OSError:
                self._outgoing.clear()
                self.was_cut_off = True
                return
            del self._outgoing[:count]
            if self._outgoing and plan.piece_bytes and self.sender.source.random() < 0.5:
                self._write_is_due = True
                outside.kernel.after(outside.network.delay_s(), self._push_later)
                return
        if self._outgoing:
            return
        self.sender.on_flushed(self)

    def _push_later(self) -> None:
        self._write_is_due = False
        self._push()

    def half_close(self) -> None:
        self.is_half_closed = True
        self.client.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Closes the connection from this side."""
        if not self.is_over:
            self.is_over = True
            self.client.close()
            self.sender.on_over(self)

    # Answers of the daemon, before they leave it ------------------------------------------

    def _on_sent(self, data: bytes) -> None:
        self._answered += data
        while (end := self._answered.find(b"\n")) >= 0:
            line = bytes(self._answered[:end])
            del self._answered[: end + 1]
            if line.startswith(b'{"ack":'):
                number = int(line[7:-1])
                self.outside.oracle.promise(self.sent, number, "an ack")
                if self.dropped and min(self.dropped) <= number:
                    what = f"{self.sent.name} is acked {number}, of {sorted(self.dropped)} not told"
                    raise Violation("dropped and not told", what)
            elif any(error in line for error in _UNKNOWN_WHAT_IS_DURABLE):
                self.was_warned = True
            elif b'"over_quota"' in line:
                answer = json.loads(line)
                told = set(range(answer["first"], answer["last"] + 1))
                if not told or told - self.dropped:
                    what = f"{self.sent.name} of {sorted(told)}, and {sorted(self.dropped)} were"
                    raise Violation("told of what was not dropped", what)
                self.dropped -= told
            elif line.startswith(b'{"welcome"'):
                answer = json.loads(line)
                self.sender.on_next(self, answer["next"])

    def _on_server_closed(self) -> None:
        # If the daemon left something unread, the sender gets a socket error instead.
        is_promise = self.is_half_closed and not self.was_warned and not self.server.received
        if is_promise and self.sender.plan.kind == NAMELESS:
            self.outside.oracle.promise(self.sent, self.sent.most, "an end of file")

    # Answers of the daemon, when they arrive ----------------------------------------------

    def _on_event(self) -> None:
        if self.is_over:
            return
        if self._outgoing:
            self._push()
        if self.is_over or not self.client.is_readable:
            return
        plan, kernel = self.sender.plan, self.outside.kernel
        if plan.read_s and kernel.now < self._read_at:
            return
        if plan.read_s:
            self._read_at = kernel.now + plan.read_s * self.sender.source.random()
            kernel.after(plan.read_s, self._on_event)
        self._receive()

    def _receive(self) -> None:
        while not self.is_over:
            try:
                data = self.client.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.is_over = True
                self.client.close()
                self.sender.on_over(self)
                return
            self._read += data
            while (end := self._read.find(b"\n")) >= 0:
                line = bytes(self._read[:end])
                del self._read[: end + 1]
                self.sender.on_answer(self, json.loads(line))
                if self.is_over:
                    return


class Sender:
    """A sender, over all its connections."""

    def __init__(self, plan: SenderPlan, outside: Outside, seed: str) -> None:
        self.plan = plan
        self.outside = outside
        self.source = random.Random(f"{seed} sender {plan.number}")
        self.connection: Connection | None = None
        self.others: list[Connection] = []  # older ones that were not told to close yet
        self.acked = 0
        self.is_done = False
        self.is_delivered = False  # all records of a nameless sender are in the daemon's socket
        self.welcomes = 0
        self.fenced = 0
        self.answers = 0
        self._connections = 0
        self._act_is_due = False
        self._sizes = [size for _, sizes in plan.bursts for size in sizes]
        self._ends: list[int] = []
        for _, sizes in plan.bursts:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(sizes))
        self.sent = self._make_known(f"p{plan.number}")
        outside.kernel.at(plan.begins_s, self.begin)

    def _make_known(self, name: str) -> Sent:
        return self.outside.oracle.sender(self.plan.stream, name, self.plan.refused)

    def begin(self) -> None:
        """Tries to connect."""
        if self.is_done or self.connection is not None:
            return
        if not self.outside.is_listening:
            self.outside.kernel.after(_NO_CONNECTION_S, self.begin)
            return
        self._connect()

    def _connect(self) -> None:
        self._connections += 1
        plan = self.plan
        if plan.kind in (ANSWERED, NAMELESS) and self._connections > 1:
            # Numbers belong to the connection: a new name distinguishes its records.
            self.sent = self._make_known(f"p{plan.number}.{self._connections}")
        connection = self.connection = Connection(self, self.outside)
        connection.sent = self.sent
        if plan.kind == ASKING:
            connection.write(b'{"_status":1}\n')
        elif plan.kind == NAMELESS:
            connection.is_welcomed = True
            self._act_soon(0.0)
        else:
            hello: dict[str, Any] = {"_hello": 1, "stream": plan.stream}
            if plan.asks == 1.0:
                hello["flush"] = True
            if plan.kind == NAMED:
                hello["producer"] = plan.producer
                if self.welcomes and self.source.random() < plan.tells_first:
                    hello["first"] = self.acked + 1
            connection.write(json.dumps(hello).encode() + b"\n")

    def rival(self) -> None:
        """Opens another connection of the same producer while the previous one continues."""
        if self.plan.kind != NAMED or self.connection is None or self.is_done:
            return
        if not self.outside.is_listening:
            return
        if self.source.random() < 0.5:
            # It does not know about the other one, and closes some time later.
            self.outside.kernel.after(self.source.random() * 0.05, self.connection.hang_up)
        self.others.append(self.connection)
        self._connect()

    def hang_up(self) -> None:
        """Disconnects without a goodbye, and reconnects."""
        if self.connection is not None:
            self.connection.hang_up()

    # Answers ------------------------------------------------------------------------------

    def on_next(self, connection: Connection, number: int) -> None:
        """A welcome is about to be sent."""
        if self.plan.kind != NAMED:
            return
        if number - 1 < self.sent.promised:
            raise Violation(
                "next is not true",
                f"{self.sent.name} in {self.plan.stream} is told {number}, and"
                f" {self.sent.promised} was acknowledged",
            )
        self.outside.oracle.promise(self.sent, number - 1, "a welcome")

    def on_answer(  # noqa: PLR0912 - one case for each answer
        self, connection: Connection, answer: dict[str, Any]
    ) -> None:
        self.answers += 1
        if "ack" in answer:
            if self.plan.kind == NAMED:
                self.acked = max(self.acked, answer["ack"])
            elif connection is self.connection:
                self.acked = answer["ack"]
            if self.acked >= self.plan.records:
                self._finish(connection)
            elif connection is self.connection:
                self._act_soon(0.0)
        elif "welcome" in answer:
            connection.is_welcomed = True
            self.welcomes += 1
            connection.sent_up_to = answer["next"] - 1
            if self.plan.kind == NAMED:
                self.acked = max(self.acked, answer["next"] - 1)
            if self.acked >= self.plan.records:
                self._finish(connection)
            elif connection is self.connection:
                self._act_soon(0.0)
        elif "status" in answer:
            self.is_done = True
        elif self.plan.kind == ASKING:
            self.is_done = True  # not every sender is notified
        elif answer.get("error") == "fenced":
            self.fenced += 1
            # An older one may send its hello after a newer one, and then takes over.
            if self._connections == 1:
                raise Violation("fenced", f"{self.sent.name} is fenced and has no rival")

    def on_over(self, connection: Connection) -> None:
        """A connection was closed, by either side."""
        if connection in self.others:
            self.others.remove(connection)
        if connection is not self.connection:
            return
        self.connection = None
        if self.is_done:
            return
        if self.plan.kind == NAMELESS and connection.sent_up_to >= self.plan.records:
            self.is_done = True
            return
        if self.plan.kind in (ANSWERED, NAMELESS):
            # It is unknown what happened to the rest: stop.
            self.is_done = True
            return
        self.outside.kernel.after(self.source.random() * _NO_CONNECTION_S, self.begin)

    def _finish(self, connection: Connection) -> None:
        self.is_done = True
        for each in [*self.others, self.connection]:
            if each is not None:
                each.hang_up()

    # Sending ------------------------------------------------------------------------------

    def _act_soon(self, delay_s: float) -> None:
        if not self._act_is_due:
            self._act_is_due = True
            self.outside.kernel.after(delay_s, self._act)

    def on_flushed(self, connection: Connection) -> None:
        """Everything to be written is in the socket."""
        if connection is self.connection and connection.is_welcomed:
            self._act_soon(0.0)

    def _act(self) -> None:
        self._act_is_due = False
        connection = self.connection
        if self.is_done or connection is None or connection.is_over or not connection.is_welcomed:
            return
        if not connection.is_flushed or connection.is_half_closed:
            return
        plan, source = self.plan, self.source
        at = connection.sent_up_to
        if at >= plan.records:
            self._end(connection)
            return
        if plan.kind == NAMED and at > self.acked and source.random() < plan.waits_for_ack:
            return  # until it is acknowledged
        if at and source.random() < plan.hangs_up:
            self._send_half(connection)
            connection.hang_up()
            return
        burst = next(i for i, end in enumerate(self._ends) if end > at)
        end = self._ends[burst]
        pause_s = plan.bursts[burst][0]
        data = b"".join(self._line(number) for number in range(at + 1, end + 1))
        if source.random() < plan.asks:
            data += b"\n"
        connection.sent_up_to = end
        connection.sent.most = max(connection.sent.most, end)
        if pause_s:
            self._act_is_due = True  # do nothing else meanwhile

            def go_on() -> None:
                self._act_is_due = False
                if connection is self.connection and not connection.is_over:
                    connection.write(data)
                else:
                    self._act_soon(0.0)

            self.outside.kernel.after(pause_s, go_on)
        else:
            connection.write(data)

    def _line(self, number: int) -> bytes:
        if number in self.plan.refused:
            return b"x" * (self.outside.max_record + 1 + number % 7) + b"\n"
        name = (self.connection.sent if self.connection else self.sent).name
        size = self._sizes[number - 1]
        end = b"" if self.plan.ends_open and number == self.plan.records else b"\n"
        return b'{"p":"%s","n":%d,"x":"%s"}%s' % (name.encode(), number, _PAYLOAD[:size], end)

    def _send_half(self, connection: Connection) -> None:
        """Sends the beginning of the next record, which must never be visible."""
        if self.plan.kind == NAMED and self.source.random() < 0.5:
            connection.write(b'{"p":"%s","n":' % self.sent.name.encode())

    def _end(self, connection: Connection) -> None:
        plan = self.plan
        if plan.kind == NAMELESS:
            connection.sent.most = max(connection.sent.most, plan.records)
            if self.source.random() < plan.half_closes:
                connection.half_close()
            else:
                self.is_done = True
                self.is_delivered = not connection.was_cut_off
                connection.hang_up()
        elif self.source.random() < plan.half_closes:
            connection.half_close()


MakeSender = Callable[[SenderPlan], Sender]
__all__ = ["ANSWERED", "ASKING", "NAMED", "NAMELESS", "End", "Outside", "Sender", "SenderPlan"]
