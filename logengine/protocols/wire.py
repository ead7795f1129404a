"""The types of a wire protocol: its events, receiver, answers, transports, and name.

A receiver turns the bytes of one connection, or of each datagram, into events. Answers are the
bytes that the daemon writes back. Listeners, credentials, quotas and the configuration know nothing
else about a protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Literal, Protocol, runtime_checkable

import msgspec

from logengine.protocols.status import Status

# A stream socket has connections, each of one sender, and they can be answered. A datagram is
# complete by itself, and its sender may differ from that of the previous one.
Transport = Literal["stream", "datagram"]

# Who reads the connections of a protocol: `intake.connection`, by the protocol's receiver, or a
# server of requests.
Served = Literal["connection", "http", "grpc"]


class Lines(msgspec.Struct, frozen=True):
    """Complete lines, each with its newline. Each is one record unless it is blank.

    A line that is a JSON object is stored as that object, any other line as `message`
    (`format.record`).
    """

    chunk: bytes


class TooLarge(msgspec.Struct, frozen=True):
    """One record longer than `max_record`, which was discarded; it uses up a number."""


class Chunk(msgspec.Struct, frozen=True):
    """Records that are stored together, once, and that a sender may send again.

    `lines` are as in `Lines`, none of them blank; `too_large` is how many more records there were,
    longer than `max_record`. `answer` is written once all are durable. A chunk of the same process
    with the same `digest` is the same chunk.
    """

    lines: bytes
    too_large: int
    answer: bytes
    digest: bytes


class Malformed(msgspec.Struct, frozen=True):
    """Bytes that are not of the protocol, and why. After it the connection is closed."""

    reason: str


class Hello(msgspec.Struct, frozen=True):
    """The first line of a sender that wants answers.

    `stream` None means the listener's stream. `first` is the lowest number that the producer still
    keeps, if the hello has it. `flush`: the sender says when it waits (`Flush`).
    """

    stream: str | None
    producer: str | None
    first: int | None
    flush: bool = False


class BadHello(msgspec.Struct, frozen=True):
    """A hello that is not accepted. `answer` says why; after it the connection is closed."""

    answer: bytes


class Flush(msgspec.Struct, frozen=True):
    """The sender waits until everything before it is durable."""


class StatusRequest(msgspec.Struct, frozen=True):
    """A request for the daemon's status. After the answer the connection is closed."""


Event = Lines | TooLarge | Chunk | Malformed | Flush | Hello | BadHello | StatusRequest


class Opening(Enum):
    """What the first bytes of a new sender start with, as far as they show it."""

    RECORD = auto()
    HELLO = auto()  # it may name another stream than the listener's
    STATUS = auto()  # a complete request


class Receiver(Protocol):
    """Turns the bytes of one connection, or of one datagram after the other, into events.

    The events do not depend on how the bytes were cut. Keeps at most one unfinished record, of
    little more than `max_record` bytes.
    """

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes received of a record that is not complete yet."""

    @property
    def awaits_opening(self) -> bool:
        """Whether the next record may be a hello, which may name another stream for all records."""

    @property
    def is_inside_hello(self) -> bool:
        """Whether the unfinished record is the first one, and may be a hello or a request."""

    def receive(self, data: bytes) -> list[Event]:
        """Returns the events that `data` completes, in order."""

    def end(self) -> list[Event]:
        """Returns the events of the unfinished record, at end of input.

        After the end of a datagram, the receiver takes the next one.
        """

    def drop_unfinished(self) -> int:
        """Discards the unfinished record. Returns how many bytes it had."""

    def opening(self, waiting: bytes) -> Opening:
        """Classifies the first bytes of a sender, or the part of them in `waiting`."""

    def whole_bytes(self, waiting: bytes) -> int:
        """Returns how many bytes of `waiting` belong to complete records."""

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """Returns the size of the first `records` records in `waiting`; all of it if fewer."""


@runtime_checkable
class PartsReceiver(Receiver, Protocol):
    """A receiver that keeps complete records: parts of a line whose other parts are to come.

    They are in `unfinished_bytes`. `end` returns them too; `drop_unfinished` leaves them.
    """

    @property
    def has_parts(self) -> bool:
        """Whether it keeps some."""

    def old_parts(self) -> list[Event]:
        """Returns those that were there at the previous call too, and keeps them no more."""

    def parts(self) -> list[Event]:
        """Returns all of them, and keeps none."""


class Answers(Protocol):
    """Encodes the daemon's side of a conversation; empty bytes if a protocol has no such answer."""

    def welcome(self, next_number: int, max_record: int, known: int | None) -> bytes:
        """The sender continues from `next_number`.

        `known` is the last number that the daemon has of this producer, 0 if it knows none, and
        None for a sender without a producer.
        """

    def ack(self, number: int) -> bytes:
        """Every record up to `number` is durable, or was refused by an earlier error."""

    def too_large(self, number: int, limit: int) -> bytes:
        """Record `number` is longer than `limit` bytes and was not stored."""

    def over_quota(self, first: int, last: int, quota: str) -> bytes:
        """Records `first` to `last` exceeded `quota` and were not stored."""

    def error(self, error: str, **details: object) -> bytes:
        """An error that ends the connection, such as `fenced`."""

    def goodbye(self, reason: str) -> bytes:
        """The daemon closes the connection; the sender did nothing wrong."""

    def status(self, status: Status) -> bytes:
        """The answer to a status request."""


class NoAnswers:
    """The answers of a protocol in which the daemon never answers."""

    def welcome(self, next_number: int, max_record: int, known: int | None) -> bytes:
        """Nothing."""
        return b""

    def ack(self, number: int) -> bytes:
        """Nothing."""
        return b""

    def too_large(self, number: int, limit: int) -> bytes:
        """Nothing."""
        return b""

    def over_quota(self, first: int, last: int, quota: str) -> bytes:
        """Nothing."""
        return b""

    def error(self, error: str, **details: object) -> bytes:
        """Nothing."""
        return b""

    def goodbye(self, reason: str) -> bytes:
        """Nothing."""
        return b""

    def status(self, status: Status) -> bytes:
        """Nothing."""
        return b""


# Returns the local time, an aware one; the same for all that is read together.
Clock = Callable[[], datetime]


@dataclass(frozen=True)
class WireProtocol:
    """A protocol, named in `[[listen]]`.

    `receiver` makes a receiver for a `max_record` in bytes. `receiver_on` makes one for a
    `max_record`, a transport and a clock, if the records depend on the transport, or on the time
    at which they arrive; `receiver` then only classifies openings. In a datagram only the events
    `Lines` and `TooLarge` count, because its sender cannot be answered. With `takes_memory_files`,
    what is too large for a datagram may come in a sealed memory file (memfd_create(2)), whose
    descriptor is passed along with an empty datagram. If a server of requests reads the connections
    (`served_by`), the receiver only classifies openings too. `packages`, as they are imported, are
    those of `extra`, which the protocol needs. `names_streams`: a sender may name its stream in a
    hello, so records are not routed by their fields. `has_chunks`: there are events `Chunk`.
    `over_network`: it needs no user of the sender, and may be spoken by other hosts; over TLS,
    `tls_names` are what a client asks for with it (ALPN).
    """

    name: str
    transports: tuple[Transport, ...]
    receiver: Callable[[int], Receiver]
    answers: Answers
    receiver_on: Callable[[int, Transport, Clock], Receiver] | None = None
    takes_memory_files: bool = False
    served_by: Served = "connection"
    packages: tuple[str, ...] = ()
    extra: str = ""
    names_streams: bool = False
    has_chunks: bool = False
    over_network: bool = False
    tls_names: tuple[str, ...] = ()

    def new_receiver(self, max_record: int, transport: Transport, now: Clock) -> Receiver:
        """Returns the receiver for one connection, or for the datagrams to one socket."""
        if self.receiver_on is None:
            return self.receiver(max_record)
        return self.receiver_on(max_record, transport, now)


class NewlineFraming:
    """Finds the ends of records, for protocols in which each record ends with a newline."""

    def whole_bytes(self, waiting: bytes) -> int:
        """Returns how many bytes of `waiting` belong to complete lines."""
        return waiting.rfind(b"\n") + 1

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """Returns the size of the first `records` lines in `waiting`; all of it if fewer."""
        parts = waiting.split(b"\n", records)
        return len(waiting) - (len(parts[-1]) if len(parts) > records else 0)
