"""NDJSON with acks: one JSON object per line, and a hello that turns answers on.

Implements the daemon's side of `docs/protocol.md`, the specification.
"""

import re
from enum import Enum, auto

import msgspec

from logengine.format.producers import FILE_PREFIX
from logengine.format.segment import STREAM_NAME_RULE, is_stream_name
from logengine.protocols.status import Status
from logengine.protocols.wire import (
    BadHello,
    Event,
    Flush,
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
_OPENING_BYTES = 64  # a line that begins with more white space than this may be anything
NUMBER_MAX = 2**53  # every JSON reader represents integers up to this exactly

_HELLO_START = re.compile(rb'[ \t\r]*\{[ \t\r]*"_hello"[ \t\r]*:')
_STATUS_REQUEST = re.compile(
    rb'[ \t\r]*\{[ \t\r]*"_status"[ \t\r]*:[ \t\r]*([0-9]+)[ \t\r]*\}[ \t\r]*\n'
)
# Half of a surrogate pair, as in an argument that is not UTF-8, cannot be sent.
_NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class _State(Enum):
    FIRST_LINE = auto()
    LINES = auto()
    INSIDE_TOO_LARGE = auto()
    CLOSED = auto()


class NdjsonReceiver(NewlineFraming):
    """Turns the bytes of one connection into events, which do not depend on how they were cut.

    Keeps at most one unfinished line: `unfinished_bytes`, never more than `max_record` plus one
    `receive`. O(bytes received), also for a line that arrives byte by byte. A line's length is
    measured without its newline and without one carriage return right before it.
    """

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._state = _State.FIRST_LINE
        self._unfinished = bytearray()

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes received of a line that has no newline yet."""
        return len(self._unfinished)

    @property
    def awaits_opening(self) -> bool:
        """Whether every line so far was blank: the first other one may be a hello."""
        return self._state is _State.FIRST_LINE

    @property
    def is_inside_hello(self) -> bool:
        """Whether the unfinished line is the first one, and may be a hello or a request."""
        return self._state is _State.FIRST_LINE and may_become_opening(self._unfinished)

    def opening(self, waiting: bytes) -> Opening:
        """Classifies the first line of a sender by its first bytes, `waiting`."""
        if begins_with_status_request(waiting):
            return Opening.STATUS
        return Opening.HELLO if begins_with_hello(waiting) else Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """Returns the events that `data` completes, in order."""
        newline = data.rfind(b"\n")
        if newline < 0:
            return self._hold(data)
        rest = data[newline + 1 :]
        if self._unfinished or rest:
            # One copy only: under load, every record passes through such a chunk.
            complete = b"".join((self._unfinished, memoryview(data)[: newline + 1]))
            self._unfinished.clear()
        else:
            complete = data
        events = self._complete(complete)
        return events + self._hold(rest) if rest else events

    def end(self) -> list[Event]:
        """Returns the events of a last line without a newline: it counts as a line."""
        if not self._unfinished:
            return []
        return self.receive(b"\n")

    def drop_unfinished(self) -> int:
        """Discards a last line without a newline. Returns how many bytes it had."""
        dropped = self.unfinished_bytes
        self._unfinished.clear()
        return dropped

    def _hold(self, data: bytes) -> list[Event]:
        if self._state in (_State.CLOSED, _State.INSIDE_TOO_LARGE):
            return []
        self._unfinished += data
        # One byte more, because a carriage return before the newline is not part of the record.
        if self.unfinished_bytes <= self._max_record + 1:
            return []
        self._unfinished.clear()
        self._state = _State.INSIDE_TOO_LARGE
        return [TooLarge()]

    def _complete(self, chunk: bytes) -> list[Event]:
        if self._state is _State.LINES:
            return self._lines(chunk)
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
        start = self._blank_bytes(chunk)
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

    def _blank_bytes(self, chunk: bytes) -> int:
        """Returns the size of the blank lines at the start, if none of them can be too large."""
        content = len(chunk) - len(chunk.lstrip(b" \t\r\n"))
        size_bytes = chunk.rfind(b"\n", 0, content) + 1
        return size_bytes if size_bytes <= self._max_record else 0

    def _lines(self, chunk: bytes) -> list[Event]:
        if not chunk:
            return []
        # An empty line asks for a commit of all lines before it; the lines of this chunk after it
        # may be in it too.
        has_empty = chunk.startswith(b"\n") or b"\n\n" in chunk
        if len(chunk) <= self._max_record:
            if not has_empty:
                return [Lines(chunk)]
            return [Lines(chunk), Flush()] if chunk != b"\n" else [Flush()]
        flush: list[Event] = [Flush()] if has_empty else []
        events: list[Event] = []
        start = stop = 0
        # Only a chunk longer than max_record can contain such a line.
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
        return events + flush

    def _is_too_large(self, line: bytes) -> bool:
        return len(line.removesuffix(b"\n").removesuffix(b"\r")) > self._max_record


class _HelloLine(msgspec.Struct, frozen=True):
    version: int = msgspec.field(name="_hello")
    stream: str | None = None
    producer: str | None = None
    first: int | None = None
    flush: bool | None = None


_hello_decoder = msgspec.json.Decoder(_HelloLine)


def decode_hello(line: bytes) -> Hello | BadHello:
    """Decodes a first line that starts like a hello. Unknown keys are ignored."""
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
                expected=f"1 to {PRODUCER_CHARACTERS_MAX} characters without control characters, "
                f"not beginning with {FILE_PREFIX!r}",
            )
        )
    if said.first is not None and not 1 <= said.first <= NUMBER_MAX:
        return BadHello(
            error_answer("invalid_first", found=str(said.first)[:40], expected=f"1 to {NUMBER_MAX}")
        )
    return Hello(said.stream, said.producer, said.first, bool(said.flush))


def _status_event(version: int) -> StatusRequest | BadHello:
    if version == PROTOCOL_VERSION:
        return StatusRequest()
    return BadHello(error_answer("unsupported_version", found=version, expected=PROTOCOL_VERSION))


def begins_with_hello(data: bytes) -> bool:
    """Whether a sender's first bytes start like a hello; the rest of it may be missing."""
    return _HELLO_START.match(data.lstrip(b" \t\r\n")) is not None


def may_become_opening(unfinished: bytes | bytearray) -> bool:
    """Whether a line that begins like this, and is not complete, may be a hello or a request."""
    if not unfinished:
        return False
    said = b"".join(unfinished[:_OPENING_BYTES].split())
    return any(said.startswith(key[: len(said)]) for key in (b'{"_hello":', b'{"_status":'))


def begins_with_status_request(data: bytes) -> bool:
    """Whether a sender's first bytes start with a complete status request."""
    return _STATUS_REQUEST.match(data) is not None


def is_producer_name(name: str) -> bool:
    """Whether `name` is valid as the name of a producer."""
    is_long = not 0 < len(name) <= PRODUCER_CHARACTERS_MAX
    return not (is_long or _NOT_IN_NAMES.search(name) or name.startswith(FILE_PREFIX))


def welcome_answer(next_number: int, max_record: int, known: int | None = None) -> bytes:
    """The sender continues from `next_number`.

    `known` is the last number that the daemon has of this producer, 0 if it knows none, and None
    for a sender without a producer.
    """
    known_key = b"" if known is None else b',"known":%d' % known
    return b'{"welcome":%d,"next":%d,"max_record":%d%s}\n' % (
        PROTOCOL_VERSION,
        next_number,
        max_record,
        known_key,
    )


def ack_answer(number: int) -> bytes:
    """Every record up to `number` is durable, or was refused by an earlier error."""
    return b'{"ack":%d}\n' % number


def too_large_answer(number: int, limit: int) -> bytes:
    """Record `number` is longer than `limit` bytes and was not stored."""
    return b'{"error":"record_too_large","record":%d,"limit":%d}\n' % (number, limit)


def over_quota_answer(first: int, last: int, quota: str) -> bytes:
    """Records `first` to `last` exceeded `quota` and were not stored."""
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
    """The answer to a status request."""
    return msgspec.json.encode(status) + b"\n"


class NdjsonAnswers:
    """The lines that the daemon writes to a sender."""

    welcome = staticmethod(welcome_answer)
    ack = staticmethod(ack_answer)
    too_large = staticmethod(too_large_answer)
    over_quota = staticmethod(over_quota_answer)
    error = staticmethod(error_answer)
    goodbye = staticmethod(goodbye_answer)
    status = staticmethod(status_answer)


PROTOCOL = WireProtocol("ndjson", ("stream",), NdjsonReceiver, NdjsonAnswers(), names_streams=True)
