r"""Syslog over Unix sockets: each message is a record, and no sender is answered.

Implements the daemon's side of `docs/syslog.md`, the specification. A datagram is one message. Over
a stream, a message ends as its sender ends it:

    15 <13>text of LF\n          after as many bytes as the count in front says (RFC 6587)
    <13>text of\nglibc\0         with NUL; once there was one, LF is part of a message
    <13>text of logger\n         with LF
"""

import copy
import re
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from typing import Any

import msgspec

from logengine.format.json_object import object_fields
from logengine.format.record import BLANK, between_characters, readable_text
from logengine.format.text_time import leading_time
from logengine.protocols.syslog_headers import Headers
from logengine.protocols.syslog_message import SyslogMessage, parse_message
from logengine.protocols.wire import Event, Lines, NoAnswers, Opening, Transport, WireProtocol

_NUL, _LF = b"\0", b"\n"
_PRIORITY_START = ord("<")
_BLANK = BLANK + _LF + _NUL
_BETWEEN = re.compile(rb"[\0\n]++")
_COUNT = re.compile(rb"([1-9]\d{0,8}) (?=<)")
_PERHAPS_COUNT = re.compile(rb"[1-9]\d{0,8} ?")
# The end of a message before it is known whether this sender ends them with LF or NUL.
_END = re.compile(rb"\0|\n(?=<\d{1,3}>|[1-9]\d{0,8} <)")
# A carriage return, LF and NUL after a message are not part of it.
_ENDING_BYTES_MAX = 3
_OTHER_NAME = "syslog_"


class _Framing:
    """Finds the ends of the messages in the bytes of one connection. Keeps none of these bytes."""

    def __init__(self) -> None:
        self.is_inside = False  # the bytes that come next are part of a message
        self.octets: int | None = None  # how many of them, if the sender counted
        self._ends_with_nul = False

    @property
    def ends_with_lf(self) -> bool:
        """Whether messages without a count end with LF, as long as there is no NUL."""
        return not self._ends_with_nul

    def begin(self, data: bytes | bytearray, place: int, *, is_last: bool) -> int:
        """Returns where the next message begins. `is_inside` is still false if it is not here yet.

        Then no more bytes are left than may be a count.
        """
        between = _BETWEEN.match(data, place)
        if between is not None:
            self._ends_with_nul |= _NUL in between[0]
            place = between.end()
        if count := _COUNT.match(data, place):
            self.is_inside = True
            self.octets = int(count[1])
            return count.end()
        is_count = _PERHAPS_COUNT.fullmatch(data, place) is not None
        self.is_inside = place < len(data) and (is_last or not is_count)
        return place

    def end(self, data: bytes | bytearray, place: int, searched: int, last_nul: int) -> int | None:
        """Returns where the message from `place` on ends; None if that is not in `data`.

        The end includes LF or NUL. None of these is before `searched`, and no NUL after `last_nul`.
        """
        if self.octets is not None:
            stop = place + self.octets
            if stop > len(data):
                return None
        elif self._ends_with_nul or searched <= last_nul:
            found = (
                data.find(_NUL, searched)
                if self._ends_with_nul
                else self._first_end(data, searched)
            )
            if found < 0:
                return None
            stop = found + 1
        else:
            stop = data.find(_LF, searched) + 1
            if not stop:
                return None
        self.is_inside = False
        self.octets = None
        return stop

    def _first_end(self, data: bytes | bytearray, searched: int) -> int:
        found = _END.search(data, searched)
        if found is None:
            return -1
        self._ends_with_nul = found[0] == _NUL
        return found.start()


class SyslogReceiver:
    r"""Turns the bytes of one connection, or one datagram, into records.

    `now` returns the local time, for times without a year or a zone. Without it, these stay in the
    message.

    A message longer than `max_record` bytes becomes pieces of at most that many bytes, each but the
    last with `"partial":true`; each has the fields of the header. Keeps at most one unfinished
    message, of little more than `max_record` bytes. O(bytes), however they were cut.

    The records do not depend on the cuts, with one exception: as long as a connection had no NUL,
    LF ends a message unless a NUL was received together with it.
    """

    awaits_opening = False  # there is no hello and no request in this protocol
    is_inside_hello = False

    def __init__(
        self,
        max_record: int,
        transport: Transport = "stream",
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._max_record = max_record
        self._is_datagram = transport == "datagram"
        self._now = now
        self._framing = _Framing()
        self._unfinished = bytearray()
        self._searched = 0  # so many bytes of it have no end of a message
        self._cut: dict[str, Any] | None = None  # the header of a message with a piece returned
        self._last_time: tuple[str, datetime, str | None] | None = None
        self._headers = Headers()  # at the time of `_headers_at`
        self._headers_at: datetime | None = None

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes received of a message that is not complete."""
        return len(self._unfinished)

    def opening(self, waiting: bytes) -> Opening:
        """Returns `Opening.RECORD`: every message is a record."""
        return Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """Returns the records that `data` completes, and pieces of a message that is too long."""
        before = len(self._unfinished)
        self._unfinished += data
        return [] if self._is_datagram else _lines(self._complete(before, is_last=False))

    def end(self) -> list[Event]:
        """Returns the records of a last message, or of the datagram."""
        if not self._is_datagram:
            return _lines(self._complete(len(self._unfinished), is_last=True))
        message = bytes(self._unfinished)
        self._unfinished.clear()
        if count := _COUNT.match(message):
            message = message[count.end() :]
        if message.startswith(b"<") and len(message) <= self._max_record:
            return [Lines(self._record(_without_ending(message)))]
        return _lines(self._records(message))

    def drop_unfinished(self) -> int:
        """Discards a last message without an end. Returns how many bytes it had."""
        dropped = len(self._unfinished)
        self._unfinished.clear()
        self._searched = 0
        self._cut = None
        self._framing = _Framing()
        return dropped

    def whole_bytes(self, waiting: bytes) -> int:
        """Returns how many bytes of `waiting` belong to complete messages."""
        return max(self._ends(waiting), default=0)

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """Returns the size of the first `records` messages in `waiting`; all of it if fewer."""
        for number, stop in enumerate(self._ends(waiting), 1):
            if number == records:
                return stop
        return len(waiting)

    def _ends(self, waiting: bytes) -> Iterator[int]:
        """Yields where messages end in `waiting`, which comes after what was received."""
        framing = copy.copy(self._framing)
        before = 0
        if framing.octets is not None:
            framing.octets -= len(self._unfinished)
        elif not framing.is_inside:
            before = len(self._unfinished)  # no more than the digits of a count
            waiting = bytes(self._unfinished) + waiting
        last_nul = waiting.rfind(_NUL)
        place = 0
        while True:
            if not framing.is_inside:
                place = framing.begin(waiting, place, is_last=False)
            stop = framing.end(waiting, place, place, last_nul) if framing.is_inside else None
            if stop is None:
                return
            yield stop - before
            place = stop

    def _complete(self, before: int, *, is_last: bool) -> Iterator[bytes]:
        """Yields the records of complete messages; the first `before` bytes were here already."""
        data, framing = self._unfinished, self._framing
        last_nul = data.rfind(_NUL, before)
        whole: bytes | None = None
        place = 0
        while place < len(data):
            if not framing.is_inside:
                if data[place] == _PRIORITY_START and last_nul < 0 and framing.ends_with_lf:
                    whole = whole or bytes(data)
                    place = yield from self._whole_lines(whole, place)
                place = self._searched = framing.begin(data, place, is_last=is_last)
                if not framing.is_inside:
                    break
            stop = framing.end(data, place, self._searched, last_nul)
            if stop is None and is_last:
                stop = len(data)
            if stop is None:
                self._searched = len(data)
                # With fewer bytes, what is too long may be the end of the message.
                while len(data) - place > self._max_record + _ENDING_BYTES_MAX:
                    size = self._piece_bytes(data, place)
                    yield self._piece(bytes(data[place : place + size]))
                    place += size
                    if framing.octets is not None:
                        framing.octets -= size
                break
            yield from self._records(bytes(data[place:stop]))
            place = self._searched = stop
        del data[:place]
        self._searched -= place

    def _whole_lines(self, data: bytes, place: int) -> Generator[bytes, None, int]:
        """Yields the records of messages from `place` on that begin with `<` and end with LF.

        There is no NUL in `data`. Returns where the first other one begins. Does what `_complete`
        does, in less time.
        """
        while data.startswith(b"<", place):
            stop = data.find(_LF, place) + 1
            if not stop:
                break
            message = data[place : stop - 1]
            if len(message) <= self._max_record:
                yield self._record(message.removesuffix(b"\r"))
            else:
                yield from self._records(data[place:stop])
            place = stop
        return place

    def _records(self, message: bytes) -> Iterator[bytes]:
        """Yields a complete message, or the rest of one, as a record, or in pieces."""
        message = _without_ending(message)
        start = 0
        while len(message) - start > self._max_record:
            size = self._piece_bytes(message, start)
            yield self._piece(message[start : start + size])
            start += size
        # The rest of a message that was cut is its last piece, even if that rest is blank.
        if self._cut is not None:
            header, self._cut = self._cut, None
            yield _encode(header | {"message": readable_text(message[start:])})
        elif message.strip(_BLANK):
            yield self._record(message)

    def _record(self, message: bytes) -> bytes:
        """Returns the record of a complete message, which is not blank, as a line.

        Messages of one program have the same header within a second, and so the same fields.
        """
        now = self._now() if self._now is not None else None
        if now is not self._headers_at:
            self._headers.forget()
            self._headers_at = now
        beginning, rest = self._headers.find(message)
        if beginning is not None:
            text = readable_text(rest)
            if not _may_be_object(text):
                return beginning + msgspec.json.encode(text) + b"}\n"
        parsed = self._parsed(readable_text(message))
        if beginning is None:
            self._headers.remember(message, _header(parsed) | {"message": parsed.message})
        return _record(parsed)

    def _piece_bytes(self, data: bytes | bytearray, start: int) -> int:
        beginning = bytes(data[start : start + self._max_record + 1])
        return between_characters(beginning, self._max_record)

    def _piece(self, part: bytes) -> bytes:
        text = readable_text(part)
        header = self._cut
        if header is None:
            found = self._parsed(text)
            header, text = _header(found), found.message
        # Once is enough for the structured data, which may be as long as a piece.
        self._cut = {key: header[key] for key in header if key != "structured"}
        return _encode(header | {"message": text, "partial": True})

    def _parsed(self, text: str) -> SyslogMessage:
        return parse_message(text, self._read_time)

    def _read_time(self, text: str) -> str | None:
        if self._now is None:
            return None
        now = self._now()
        # Of many messages received together, most have the same time.
        if self._last_time is None or self._last_time[0] != text or self._last_time[1] is not now:
            self._last_time = (text, now, leading_time(text, now))
        return self._last_time[2]


def _may_be_object(text: str) -> bool:
    return text.lstrip().startswith("{")


def _lines(records: Iterator[bytes]) -> list[Event]:
    chunk = b"".join(records)
    return [Lines(chunk)] if chunk else []


def _without_ending(message: bytes) -> bytes:
    message = message.removesuffix(_NUL)
    return message[: -len(_LF)].removesuffix(b"\r") if message.endswith(_LF) else message


def _header(message: SyslogMessage) -> dict[str, Any]:
    fields = message.header_fields()
    return fields if message.time is None else {"time": message.time} | fields


def _encode(record: dict[str, Any]) -> bytes:
    return msgspec.json.encode(record) + _LF


def _record(message: SyslogMessage) -> bytes:
    """Returns the record of a message as a line. If its text is a JSON object, that is the record.

    The fields of the header are added, under another name if the object has such a field.
    """
    header = _header(message)
    body = b""
    if _may_be_object(message.message):
        # Only white space between tokens can be LF: in a string, it would be an escape.
        body = message.message.encode().strip(_BLANK).replace(_LF, b" ")
    fields = object_fields(body)
    if fields is None:
        return _encode(header | {"message": message.message})
    told: dict[str, Any] = {}
    for key, value in header.items():
        free = key
        while free in fields or (free != key and free in header):
            free = _OTHER_NAME + free
        told[free] = value
    inside = body[1:].lstrip()
    comma = b"," if told and inside != b"}" else b""
    return msgspec.json.encode(told)[:-1] + comma + inside + _LF


PROTOCOL = WireProtocol(
    "syslog",
    ("stream", "datagram"),
    SyslogReceiver,
    NoAnswers(),
    SyslogReceiver,
    over_network=True,
)
