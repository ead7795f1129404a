"""What a wire protocol says of itself: its name, its transports, and what its bytes mean.

A protocol is one module of this package with a `PROTOCOL`, and `registry` finds it there. Its
receiver turns the bytes of one connection, or of one datagram, into events; its answers are the
bytes that the daemon writes back. Listeners, credentials, quotas and the configuration know
nothing more of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, Protocol

import msgspec

from logengine.protocols.status import Status

# Over a stream socket there are connections, each of one sender, and they can be answered. A
# datagram is complete, and can be of another sender than the one before.
Transport = Literal["stream", "datagram"]


class Lines(msgspec.Struct, frozen=True):
    """Complete lines, each with its newline and each one record unless it is blank.

    A line that is a JSON object is stored as that object, any other as its `message`
    (`format.record`).
    """

    chunk: bytes


class TooLarge(msgspec.Struct, frozen=True):
    """One record longer than `max_record`, which was not kept; it has used its number."""


class Hello(msgspec.Struct, frozen=True):
    """What a sender that wants answers said first.

    `stream` None means the listener's own. `first` is the lowest number the producer
    still holds, if it said so.
    """

    stream: str | None
    producer: str | None
    first: int | None


class BadHello(msgspec.Struct, frozen=True):
    """A hello that cannot be honoured; `answer` says why, then the connection is closed."""

    answer: bytes


class StatusRequest(msgspec.Struct, frozen=True):
    """The sender asks how the daemon is; the answer ends the connection."""


Event = Lines | TooLarge | Hello | BadHello | StatusRequest


class Opening(Enum):
    """What a sender that was not read yet begins with, as far as can be seen."""

    RECORD = auto()
    HELLO = auto()  # it may name another stream than the listener's
    STATUS = auto()  # a whole request


class Receiver(Protocol):
    """Turns what arrives on one connection, or in one datagram, into events.

    The events do not depend on how the bytes were cut. Holds at most one unfinished record, of
    not much more than `max_record` bytes.
    """

    @property
    def unfinished_bytes(self) -> int:
        """How many bytes there are of a record that has no end yet."""

    @property
    def awaits_opening(self) -> bool:
        """Whether the next record may be an opening that says where all of them go."""

    def receive(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order."""

    def end(self) -> list[Event]:
        """The events of what is unfinished where nothing more comes."""

    def drop_unfinished(self) -> int:
        """Forgets what is unfinished; how many bytes that was."""

    def opening(self, waiting: bytes) -> Opening:
        """What `waiting`, the first bytes of a sender or some of them, begins with."""

    def whole_bytes(self, waiting: bytes) -> int:
        """How many bytes of `waiting` come before the end of its last whole record."""

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """How many bytes of `waiting` the first `records` take; all, if it has no more."""


class Answers(Protocol):
    """The daemon's side of a conversation, in bytes; empty where a protocol says nothing."""

    def welcome(self, next_number: int, max_record: int) -> bytes:
        """All numbers below `next_number` are durable; the sender goes on from there."""

    def ack(self, number: int) -> bytes:
        """Every record up to `number` is durable, or was refused by an error of its own."""

    def too_large(self, number: int, limit: int) -> bytes:
        """Record `number` is longer than `limit` bytes and was not stored."""

    def over_quota(self, first: int, last: int, quota: str) -> bytes:
        """Records `first` to `last` were not stored, because of what `quota` allows."""

    def error(self, error: str, **details: object) -> bytes:
        """An error that ends the connection, such as `fenced`."""

    def goodbye(self, reason: str) -> bytes:
        """The daemon closes the connection, through no fault of the sender's."""

    def status(self, status: Status) -> bytes:
        """How the daemon is."""


class NoAnswers:
    """The answers of a protocol in which the daemon never says anything."""

    def welcome(self, next_number: int, max_record: int) -> bytes:
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


@dataclass(frozen=True)
class WireProtocol:
    """A protocol, as `[[listen]]` names it.

    `receiver` makes a receiver for a `max_record` in bytes. Of the events only `Lines` and
    `TooLarge` count in a datagram: nobody can be answered there.
    """

    name: str
    transports: tuple[Transport, ...]
    receiver: Callable[[int], Receiver]
    answers: Answers


class NewlineFraming:
    """Where records end, for receivers of protocols in which each one ends with a newline."""

    def whole_bytes(self, waiting: bytes) -> int:
        """How many bytes of `waiting` come before the end of its last whole line."""
        return waiting.rfind(b"\n") + 1

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """How many bytes of `waiting` the first `records` lines take; all, if it has no more."""
        parts = waiting.split(b"\n", records)
        return len(waiting) - (len(parts[-1]) if len(parts) > records else 0)
