"""NDJSON with acks: one JSON object per line, and a hello that turns answers on.

`docs/protocol.md` is the specification; this is the daemon's side of it.
"""

import re
from enum import Enum, auto

import msgspec

from logengine.format.segment import STREAM_NAME_RULE, is_stream_name
from logengine.protocols.status import Status
from logengine.protocols.wire import (
    BadHello,
    Event,
    Hello,
    Lines,
    NewlineFraming,
    Opening,
    StatusRequest,
    TooLarge,
    WireProtocol,
)

PROTOCOL_VERSION = 1
PRODUCER_CHARACTERS_MAX = 128
_VERSION_DIGITS_MAX = 9
NUMBER_MAX = 2**53  # what every JSON reader holds exactly

_HELLO_START = re.compile(rb'[ \t\r]*\{[ \t\r]*"_hello"[ \t\r]*:')
_STATUS_REQUEST = re.compile(
    rb'[ \t\r]*\{[ \t\r]*"_status"[ \t\r]*:[ \t\r]*([0-9]+)[ \t\r]*\}[ \t\r]*\n'
)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _State(Enum):
    FIRST_LINE = auto()
    LINES = auto()
    INSIDE_TOO_LARGE = auto()
    CLOSED = auto()


class NdjsonReceiver(NewlineFraming):
    """Turns what arrives on one connection, however it is cut, into events.

    Holds at most one unfinished line: `unfinished_bytes`, never more than
    `max_record` plus one `receive`. O(bytes received), also for a line that arrives
    byte by byte. A line's length is measured without its newline and without one
    carriage return before that, however it was cut.
    """

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._state = _State.FIRST_LINE
        self._unfinished = bytearray()

    @property
    def unfinished_bytes(self) -> int:
        """How many bytes of a line there are that no newline ended yet."""
        return len(self._unfinished)

    @property
    def awaits_opening(self) -> bool:
        """Whether no line came yet that is not blank: the first one may be a hello."""
        return self._state is _State.FIRST_LINE

    def opening(self, waiting: bytes) -> Opening:
        """What the first line of a sender is, of which `waiting` is the beginning."""
        if begins_with_status_request(waiting):
            return Opening.STATUS
        return Opening.HELLO if begins_with_hello(waiting) else Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order."""
        newline = data.rfind(b"\n")
        if newline < 0:
            return self._hold(data)
        rest = data[newline + 1 :]
        if self._unfinished or rest:
            # Copied once: of what comes under load, each record is in such a chunk.
            complete = b"".join((self._unfinished, memoryview(data)[: newline + 1]))
            self._unfinished.clear()
        else:
            complete = data
        events = self._complete(complete)
        return events + self._hold(rest) if rest else events

    def end(self) -> list[Event]:
        """The events of a last line that no newline ended: it counts as a line."""
        if not self._unfinished:
            return []
        return self.receive(b"\n")

    def drop_unfinished(self) -> int:
        """Forgets a last line that no newline ended; how many bytes of it there were."""
        dropped = self.unfinished_bytes
        self._unfinished.clear()
        return dropped

    def _hold(self, data: bytes) -> list[Event]:
        if self._state in (_State.CLOSED, _State.INSIDE_TOO_LARGE):
            return []
        self._unfinished += data
        # One more, because a carriage return before the newline is not the record's.
        if self.unfinished_bytes <= self._max_record + 1:
            return []
        self._unfinished.clear()
        self._state = _State.INSIDE_TOO_LARGE
        return [TooLarge()]

    def _complete(self, chunk: bytes) -> list[Event]:
        if self._state is _State.CLOSED:
            return []
        if self._state is _State.INSIDE_TOO_LARGE:
            self._state = _State.LINES
            chunk = chunk[chunk.index(b"\n") + 1 :]
            if not chunk:
                return []
        if self._state is _State.FIRST_LINE:
            return self._first_line(chunk)
        return self._lines(chunk)

    def _first_line(self, chunk: bytes) -> list[Event]:
        start = 0
        while start < len(chunk):
            stop = chunk.index(b"\n", start) + 1
            line = chunk[start:stop]
            if not line.strip(b" \t\r\n") and not self._is_too_large(line):
                start = stop
                continue
            if request := _STATUS_REQUEST.match(line):
                self._state = _State.CLOSED
                return [_status_event(int(request[1][:_VERSION_DIGITS_MAX]))]
            self._state = _State.LINES
            if not _HELLO_START.match(line) or self._is_too_large(line):
                return self._lines(chunk[start:])
            hello = decode_hello(line)
            if isinstance(hello, BadHello):
                self._state = _State.CLOSED
                return [hello]
            return [hello, *self._lines(chunk[stop:])]
        return []

    def _lines(self, chunk: bytes) -> list[Event]:
        if not chunk:
            return []
        if len(chunk) <= self._max_record:
            return [Lines(chunk)]
        events: list[Event] = []
        start = stop = 0
        # Only a chunk longer than max_record can hold a line that is.
        while stop < len(chunk):
            line_start, stop = stop, chunk.index(b"\n", stop) + 1
            if not self._is_too_large(chunk[line_start:stop]):
                continue
            if line_start > start:
                events.append(Lines(chunk[start:line_start]))
            events.append(TooLarge())
            start = stop
        if start < len(chunk):
            events.append(Lines(chunk[start:]))
        return events

    def _is_too_large(self, line: bytes) -> bool:
        return len(line.removesuffix(b"\n").removesuffix(b"\r")) > self._max_record


class _HelloLine(msgspec.Struct, frozen=True):
    version: int = msgspec.field(name="_hello")
    stream: str | None = None
    producer: str | None = None
    first: int | None = None


_hello_decoder = msgspec.json.Decoder(_HelloLine)


def decode_hello(line: bytes) -> Hello | BadHello:
    """The hello in a first line that begins as one; keys it does not know are ignored."""
    try:
        line.decode()
        said = _hello_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return BadHello(
            error_answer(
                "bad_hello",
                found=str(error),
                expected='{"_hello":1,"stream":"NAME","producer":"NAME","first":NUMBER}',
            )
        )
    if said.version != PROTOCOL_VERSION:
        return BadHello(
            error_answer("unsupported_version", found=said.version, expected=PROTOCOL_VERSION)
        )
    if said.stream is not None and not is_stream_name(said.stream):
        return BadHello(
            error_answer("invalid_stream", found=said.stream, expected=STREAM_NAME_RULE)
        )
    if said.producer is not None and not is_producer_name(said.producer):
        return BadHello(
            error_answer(
                "invalid_producer",
                found=said.producer,
                expected=f"1 to {PRODUCER_CHARACTERS_MAX} characters, none of them a control",
            )
        )
    if said.first is not None and not 1 <= said.first <= NUMBER_MAX:
        return BadHello(
            error_answer("invalid_first", found=str(said.first)[:40], expected=f"1 to {NUMBER_MAX}")
        )
    return Hello(said.stream, said.producer, said.first)


def _status_event(version: int) -> StatusRequest | BadHello:
    if version == PROTOCOL_VERSION:
        return StatusRequest()
    return BadHello(error_answer("unsupported_version", found=version, expected=PROTOCOL_VERSION))


def begins_with_hello(data: bytes) -> bool:
    """Whether what a sender wrote first begins as a hello, be it cut off behind that."""
    return _HELLO_START.match(data.lstrip(b" \t\r\n")) is not None


def begins_with_status_request(data: bytes) -> bool:
    """Whether the first line that a sender wrote is there whole, and asks for the status."""
    return _STATUS_REQUEST.match(data) is not None


def is_producer_name(name: str) -> bool:
    """Whether a sender may call itself `name`."""
    return 0 < len(name) <= PRODUCER_CHARACTERS_MAX and not _CONTROL_CHARACTER.search(name)


def welcome_answer(next_number: int, max_record: int) -> bytes:
    """All numbers below `next_number` are durable; the sender goes on from there."""
    return b'{"welcome":%d,"next":%d,"max_record":%d}\n' % (
        PROTOCOL_VERSION,
        next_number,
        max_record,
    )


def ack_answer(number: int) -> bytes:
    """Every record up to `number` is durable, or was refused by an error of its own."""
    return b'{"ack":%d}\n' % number


def too_large_answer(number: int, limit: int) -> bytes:
    """Record `number` is longer than `limit` bytes and was not stored."""
    return b'{"error":"record_too_large","record":%d,"limit":%d}\n' % (number, limit)


def over_quota_answer(first: int, last: int, quota: str) -> bytes:
    """Records `first` to `last` were not stored, because of what `quota` allows."""
    return b'{"error":"over_quota","first":%d,"last":%d,"quota":"%s"}\n' % (
        first,
        last,
        quota.encode(),
    )


def error_answer(error: str, **details: object) -> bytes:
    """An error that ends the connection, such as `fenced`."""
    return msgspec.json.encode({"error": error, **details}) + b"\n"


def goodbye_answer(reason: str) -> bytes:
    """The last line before the daemon closes a connection because it stops."""
    return msgspec.json.encode({"goodbye": reason}) + b"\n"


def status_answer(status: Status) -> bytes:
    """How the daemon is."""
    return msgspec.json.encode(status) + b"\n"


class NdjsonAnswers:
    """The lines that the daemon writes."""

    welcome = staticmethod(welcome_answer)
    ack = staticmethod(ack_answer)
    too_large = staticmethod(too_large_answer)
    over_quota = staticmethod(over_quota_answer)
    error = staticmethod(error_answer)
    goodbye = staticmethod(goodbye_answer)
    status = staticmethod(status_answer)


PROTOCOL = WireProtocol("ndjson", ("stream",), NdjsonReceiver, NdjsonAnswers())
