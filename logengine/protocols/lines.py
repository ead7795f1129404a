"""Plain lines: each line is a message, whatever it looks like, and no sender is answered.

Implements the daemon's side of `docs/lines.md`, the specification.
"""

from collections.abc import Iterator

import msgspec

from logengine.format.record import BLANK, between_characters, readable_text
from logengine.protocols.wire import Event, Lines, NewlineFraming, NoAnswers, Opening, WireProtocol

_BLANK = BLANK.decode()


class Message(msgspec.Struct, gc=False):
    """A line, or its last piece."""

    message: str


class Piece(msgspec.Struct, gc=False):
    """A piece of a line that is too long, but not its last one."""

    message: str
    partial: bool = True


_encoder = msgspec.json.Encoder()


class LinesReceiver(NewlineFraming):
    r"""Turns the bytes of one connection, or of one datagram, into records of text.

    A line longer than `max_record` bytes becomes pieces of at most that many bytes, each but the
    last with `"partial":true`; concatenated, their messages are the line. A byte that is not UTF-8
    becomes `\xff`. Keeps at most `max_record` + 1 bytes. O(bytes), however they were cut.
    """

    awaits_opening = False  # there is no hello and no request in this protocol
    is_inside_hello = False

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._unfinished = bytearray()
        self._is_cut = False  # a piece of the unfinished line was already returned

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes received of a line that has no newline yet."""
        return len(self._unfinished)

    def opening(self, waiting: bytes) -> Opening:
        """Returns `Opening.RECORD`: every line is a record."""
        return Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """Returns the records that `data` completes, and pieces of a line that is too long."""
        stop = data.rfind(b"\n") + 1
        records = b""
        if stop:
            complete = b"".join((self._unfinished, memoryview(data)[:stop]))
            self._unfinished.clear()
            records = self._complete(complete)
        self._unfinished += memoryview(data)[stop:]
        # One byte more, because a carriage return before the newline is not part of the line.
        if len(self._unfinished) > self._max_record + 1:
            records += self._encode(list(self._cut_unfinished()))
        return [Lines(records)] if records else []

    def end(self) -> list[Event]:
        """Returns the record of a last line without a newline."""
        return self.receive(b"\n") if self._unfinished else []

    def drop_unfinished(self) -> int:
        """Discards a last line without a newline. Returns how many bytes it had."""
        dropped = len(self._unfinished)
        self._unfinished.clear()
        self._is_cut = False
        return dropped

    def _complete(self, chunk: bytes) -> bytes:
        """Returns the records of complete lines, as lines of JSON."""
        if self._is_cut or len(chunk) > self._max_record:
            lines = chunk.split(b"\n")[:-1]
            return self._encode([each for line in lines for each in self._parts(line)])
        text = readable_text(chunk)
        return _encoder.encode_lines(
            [Message(line.removesuffix("\r")) for line in text.split("\n") if line.strip(_BLANK)]
        )

    def _encode(self, parts: list[Message | Piece]) -> bytes:
        """Returns the records of lines, or pieces of lines, as lines of JSON."""
        return _encoder.encode_lines(parts)

    def _parts(self, line: bytes) -> Iterator[Message | Piece]:
        """Yields one line as a message, or in pieces if it is too long."""
        line = line.removesuffix(b"\r")
        is_cut, self._is_cut = self._is_cut, False
        start = 0
        while len(line) - start > self._max_record:
            stop = start + self._piece_bytes(line[start : start + self._max_record + 1])
            yield Piece(readable_text(line[start:stop]))
            start = stop
        # The rest of a line that was cut is its last piece, even if that rest is blank.
        if is_cut or start or line.strip(BLANK):
            yield Message(readable_text(line[start:]))

    def _cut_unfinished(self) -> Iterator[Piece]:
        self._is_cut = True
        start = 0
        while len(self._unfinished) - start > self._max_record + 1:
            beginning = bytes(self._unfinished[start : start + self._max_record + 1])
            size = self._piece_bytes(beginning)
            yield Piece(readable_text(beginning[:size]))
            start += size
        del self._unfinished[:start]

    def _piece_bytes(self, beginning: bytes) -> int:
        """Returns how many bytes make a piece; `beginning` has one more than the limit."""
        return between_characters(beginning, self._max_record)


PROTOCOL = WireProtocol("lines", ("stream", "datagram"), LinesReceiver, NoAnswers())
