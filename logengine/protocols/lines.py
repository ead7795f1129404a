"""Plain lines: each one is a message, whatever it looks like, and nobody is answered.

`docs/lines.md` is the specification; this is the daemon's side of it.
"""

from collections.abc import Iterator

import msgspec

from logengine.format.record import BLANK, between_characters
from logengine.protocols.wire import Event, Lines, NewlineFraming, NoAnswers, Opening, WireProtocol

_BLANK = BLANK.decode()


class _Message(msgspec.Struct, gc=False):
    message: str


class _Piece(msgspec.Struct, gc=False):
    message: str
    partial: bool = True


_encoder = msgspec.json.Encoder()


class LinesReceiver(NewlineFraming):
    r"""Turns what arrives on one connection, or in one datagram, into records of text.

    A line of more than `max_record` bytes becomes pieces of at most as many, each but the last
    with `"partial":true`; put together, their messages are the line. A byte that is not UTF-8
    stands as `\xff`. Holds at most `max_record` and one bytes. O(bytes), however they were cut.
    """

    awaits_opening = False  # no line says anything but itself

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._unfinished = bytearray()
        self._is_cut = False  # there was a piece of the unfinished line already

    @property
    def unfinished_bytes(self) -> int:
        """How many bytes of a line there are that no newline ended yet."""
        return len(self._unfinished)

    def opening(self, waiting: bytes) -> Opening:
        """A record, as everything is."""
        return Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """The records that `data` completes, and pieces of a line that is too long."""
        stop = data.rfind(b"\n") + 1
        records = b""
        if stop:
            complete = b"".join((self._unfinished, memoryview(data)[:stop]))
            self._unfinished.clear()
            records = self._complete(complete)
        self._unfinished += memoryview(data)[stop:]
        # One more, because a carriage return before the newline is no part of the line.
        if len(self._unfinished) > self._max_record + 1:
            records += _encoder.encode_lines(list(self._cut_unfinished()))
        return [Lines(records)] if records else []

    def end(self) -> list[Event]:
        """The record of a last line that no newline ended."""
        return self.receive(b"\n") if self._unfinished else []

    def drop_unfinished(self) -> int:
        """Forgets a last line that no newline ended; how many bytes of it there were."""
        dropped = len(self._unfinished)
        self._unfinished.clear()
        self._is_cut = False
        return dropped

    def _complete(self, chunk: bytes) -> bytes:
        """The records of complete lines, as lines of JSON."""
        if self._is_cut or len(chunk) > self._max_record:
            lines = chunk.split(b"\n")[:-1]
            return _encoder.encode_lines([each for line in lines for each in self._parts(line)])
        text = chunk.decode("utf-8", "backslashreplace")
        return _encoder.encode_lines(
            [_Message(line.removesuffix("\r")) for line in text.split("\n") if line.strip(_BLANK)]
        )

    def _parts(self, line: bytes) -> Iterator[_Message | _Piece]:
        """One line as a message, or in pieces."""
        line = line.removesuffix(b"\r")
        is_cut, self._is_cut = self._is_cut, False
        start = 0
        while len(line) - start > self._max_record:
            stop = start + self._piece_bytes(line[start : start + self._max_record + 1])
            yield _Piece(_text(line[start:stop]))
            start = stop
        # What is left of a line that was cut ends it, be it blank.
        if is_cut or start or line.strip(BLANK):
            yield _Message(_text(line[start:]))

    def _cut_unfinished(self) -> Iterator[_Piece]:
        self._is_cut = True
        start = 0
        while len(self._unfinished) - start > self._max_record + 1:
            beginning = bytes(self._unfinished[start : start + self._max_record + 1])
            size = self._piece_bytes(beginning)
            yield _Piece(_text(beginning[:size]))
            start += size
        del self._unfinished[:start]

    def _piece_bytes(self, beginning: bytes) -> int:
        """How much of a line to take for a piece; `beginning` has one byte more than that."""
        return between_characters(beginning, self._max_record)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


PROTOCOL = WireProtocol("lines", ("stream", "datagram"), LinesReceiver, NoAnswers())
