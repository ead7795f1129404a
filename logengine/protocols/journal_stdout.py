r"""The stream that journald takes the output of programs from, as `systemd-cat` sends it.

Implements the daemon's side of `docs/journal.md`, the specification. Source: what systemd-cat and
systemd send, since systemd does not document it.

    backup\n            the sender's name, or nothing
    \n                  its unit, or nothing
    30\n                priority, as in syslog: facility times eight, plus the severity
    1\n                 whether lines may begin with a severity
    0\n0\n0\n           whether to forward to syslog, the kernel's log and the console
    it is done\n        lines
    <3>it failed\n
"""

import re
from typing import Any, NamedTuple

import msgspec

from logengine.errors import MalformedInput
from logengine.format.record import BLANK, readable_text
from logengine.format.severity import facility_of, severity_of
from logengine.protocols.lines import LinesReceiver, Message, Piece
from logengine.protocols.wire import Event, Malformed, NoAnswers, WireProtocol

HEADER_LINES = 7
# systemd takes a unit's name of 255 bytes, and journald no longer line.
HEADER_LINE_BYTES_MAX = 4096
_LF, _NUL = b"\n", b"\0"
_BLANK = BLANK.decode()
_PRIORITY = re.compile(r"\d{1,3}", re.ASCII)
_SEVERITIES = 8
_PREFIX = re.compile(r"<0{0,2}([0-7])>")
# What systemd's parse_boolean() accepts.
_TRUE, _FALSE = ("1", "yes", "y", "true", "t", "on"), ("0", "no", "n", "false", "f", "off")


class _Header(NamedTuple):
    """The fields of every record of a connection; whether a line may begin with its severity."""

    fields: dict[str, Any]
    has_prefixes: bool


class JournalStdoutReceiver(LinesReceiver):
    """Turns the bytes of one connection into records of text, with the fields of its header.

    LF or NUL ends a line. Otherwise lines, and pieces of those that are too long, are those of
    `LinesReceiver`. A header that is none ends the connection.
    """

    def __init__(self, max_record: int) -> None:
        super().__init__(max_record)
        self._begun = bytearray()  # the header, until it is complete
        self._header: _Header | None = None
        self._is_closed = False
        self._cut_fields: dict[str, Any] | None = None  # of a line with a piece returned

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes received of a header or a line that is not complete."""
        return len(self._begun) + super().unfinished_bytes

    def receive(self, data: bytes) -> list[Event]:
        """Returns the records that `data` completes, and pieces of a line that is too long."""
        if self._is_closed:
            return []
        if self._header is None:
            try:
                data = self._after_header(data)
            except MalformedInput as error:
                return self._end_malformed(str(error))
        return super().receive(data.replace(_NUL, _LF)) if data else []

    def end(self) -> list[Event]:
        """Returns the record of a last line without an end."""
        if self._begun:
            return self._end_malformed("the connection ended inside the header")
        return super().end()

    def drop_unfinished(self) -> int:
        """Discards an unfinished header or line. Returns how many bytes it had."""
        dropped = len(self._begun) + super().drop_unfinished()
        self._begun.clear()
        self._cut_fields = None
        return dropped

    def whole_bytes(self, waiting: bytes) -> int:
        """Returns how many bytes of `waiting` belong to complete lines, those of the header too."""
        return super().whole_bytes(waiting.replace(_NUL, _LF))

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """Returns the size of the first `records` lines in `waiting`, and of the header."""
        header_lines = 0 if self._header else HEADER_LINES - self._begun.count(_LF)
        return super().bytes_of(waiting.replace(_NUL, _LF), records + header_lines)

    def _after_header(self, data: bytes) -> bytes:
        """Returns what comes after the header, if it is complete. Raises `MalformedInput`."""
        self._begun += data
        *lines, rest = bytes(self._begun).split(_LF, HEADER_LINES)
        is_complete = len(lines) == HEADER_LINES
        if max(map(len, lines if is_complete else (*lines, rest))) > HEADER_LINE_BYTES_MAX:
            raise MalformedInput(
                f"a line of the header is longer than {HEADER_LINE_BYTES_MAX} bytes"
            )
        if not is_complete:
            return b""
        self._header = _parse_header([readable_text(line).strip() for line in lines])
        self._begun.clear()
        return rest

    def _end_malformed(self, reason: str) -> list[Event]:
        self._is_closed = True
        self.drop_unfinished()
        return [Malformed(reason)]

    def _complete(self, chunk: bytes) -> bytes:
        return self._encode([part for line in chunk.split(_LF)[:-1] for part in self._parts(line)])

    def _encode(self, parts: list[Message | Piece]) -> bytes:
        return b"".join(map(self._record, parts))

    def _record(self, part: Message | Piece) -> bytes:
        text, fields = part.message, self._cut_fields
        is_partial = isinstance(part, Piece)
        if fields is None:
            fields, text = self._begin_line(text)
            if not (is_partial or text.strip(_BLANK)):
                return b""
        self._cut_fields = fields if is_partial else None
        record = fields | {"message": text} | ({"partial": True} if is_partial else {})
        return msgspec.json.encode(record) + _LF

    def _begin_line(self, text: str) -> tuple[dict[str, Any], str]:
        """Returns the fields of a line, and its text without the severity in front."""
        fields, has_prefixes = self._header or _Header({}, has_prefixes=False)
        prefix = _PREFIX.match(text) if has_prefixes else None
        if prefix is None:
            return fields, text
        return fields | {"level": severity_of(prefix[1])}, text[prefix.end() :]


def _parse_header(lines: list[str]) -> _Header:
    app, unit, priority, has_prefixes, *forwards = lines
    if not _PRIORITY.fullmatch(priority):
        raise MalformedInput(
            f"line 3 of the header is {priority[:40]!r}; expected a priority from 0 to 999"
        )
    for number, text in enumerate((has_prefixes, *forwards), 4):
        if text.lower() not in _TRUE + _FALSE:
            raise MalformedInput(f"line {number} of the header is {text[:40]!r}; expected 0 or 1")
    facility, severity = divmod(int(priority), _SEVERITIES)
    found = {
        "level": severity_of(str(severity)),
        "facility": facility_of(str(facility)) if facility else None,
        "app": app or None,
        "unit": unit or None,
    }
    fields = {name: value for name, value in found.items() if value is not None}
    return _Header(fields, has_prefixes.lower() in _TRUE)


PROTOCOL = WireProtocol("journal-stdout", ("stream",), JournalStdoutReceiver, NoAnswers())
