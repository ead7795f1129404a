"""Fluentd's Forward protocol, version 1, as its clients speak it over a Unix stream socket.

Implements the daemon's side of `docs/forward.md`, the specification. Source: Fluentd's Forward
Protocol Specification v1, and what clients do instead of it.

    ["tag", time, {record}, {options}]                 Message
    ["tag", [[time, {record}], …], {options}]          Forward
    ["tag", b"<entries after each other>", {options}]  PackedForward, also compressed
"""

import copy
import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from logengine.errors import MalformedInput
from logengine.format.decompression import Decompressor
from logengine.format.json_object import exceeds_limits
from logengine.format.timestamp import format_timestamp
from logengine.protocols.messagepack import (
    BINARY_SUFFIX,
    EventTime,
    extension,
    free_name,
    has_more_values,
    header,
    is_array,
    is_text,
    json_value,
    skip,
    split,
    times_and_json,
)
from logengine.protocols.split_lines import Part, SplitLines, part_of
from logengine.protocols.wire import (
    Chunk,
    Event,
    Lines,
    Malformed,
    NoAnswers,
    Opening,
    TooLarge,
    WireProtocol,
)

# Fluent Bit sends about 2 MiB in a message. What is compressed may be this large after it is not.
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
# A message is decoded in one go, so what takes long is bounded too. Each is a second at most.
ENTRIES_MAX = 65536
VALUES_MAX = 1024 * 1024
# The records of a message may be so large as JSON: each of them repeats the tag.
RECORDS_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
# A message of JSON has one record, and is decoded as one.
_JSON_AROUND_RECORD_BYTES = 64 * 1024
CHUNK_ID_BYTES_MAX = 512
OPTIONS_BYTES_MAX = 64 * 1024
_PARTS_MAX = 4
# Shorter entries are found one by one: as many as there may be would take a gigabyte at once.
_ENTRY_BYTES_MEAN_MIN = 16
_DIGEST_BYTES = 16
_COMPRESSIONS = ("gzip", "zstd")
_RAW_ENTRY = "entry_base64"  # the field of an entry that is not one

_NIL, _JSON_ARRAY, _SPACE = 0xC0, ord("["), b" \t\r\n"
_MARK_OUTSIDE, _MARK_INSIDE = re.compile(rb'["\[\]{}]'), re.compile(rb'["\\]')
_SCALARS, _KEYS = frozenset({str, int, float, bool, type(None)}), frozenset({str})
# What msgspec raises for an entry that is cut off, nested too deep, or not UTF-8; what Python does
# for a key that cannot be one; and an entry that is too short.
_NOT_PLAIN = (
    *(msgspec.MsgspecError, UnicodeDecodeError, RecursionError),
    *(TypeError, ValueError, IndexError),
)

_Part = TypeVar("_Part")

_raws_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_entry_decoder = msgspec.msgpack.Decoder(list[Any], ext_hook=extension)
_encode = msgspec.json.Encoder().encode


class _MessagePackScan:
    """Finds the end of one message in a buffer that grows."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.start = place
        self._values = 1

    def end(self, buffer: bytearray) -> int | None:
        self.place, self._values = skip(buffer, self.place, self._values)
        # Each value has one byte at least.
        if self.place + self._values - self.start > MESSAGE_BYTES_MAX:
            raise MalformedInput(f"a message is larger than {MESSAGE_BYTES_MAX} bytes")
        return None if self._values or self.place > len(buffer) else self.place

    def move(self, size_bytes: int) -> None:
        self.place -= size_bytes
        self.start -= size_bytes


class _JsonScan:
    """The same for a message of JSON."""

    def __init__(self, place: int, size_max: int) -> None:
        self.place = place
        self.start = place
        self._size_max = size_max
        self._depth = 0
        self._is_in_string = False

    def end(self, buffer: bytearray) -> int | None:
        stop = self._find(buffer)
        if (len(buffer) if stop is None else stop) - self.start > self._size_max:
            raise MalformedInput(f"a message of JSON is larger than {self._size_max} bytes")
        return stop

    def _find(self, buffer: bytearray) -> int | None:
        while True:
            marks = _MARK_INSIDE if self._is_in_string else _MARK_OUTSIDE
            mark = marks.search(buffer, self.place)
            if mark is None:
                self.place = len(buffer)
                return None
            self.place = mark.end()
            if mark[0] == b'"':
                self._is_in_string = not self._is_in_string
            elif mark[0] == b"\\":
                if self.place == len(buffer):
                    self.place -= 1  # what is escaped has not arrived
                    return None
                self.place += 1
            else:
                self._depth += 1 if mark[0] in b"[{" else -1
                if not self._depth:
                    return self.place

    def move(self, size_bytes: int) -> None:
        self.place -= size_bytes
        self.start -= size_bytes


class _Framing:
    """Cuts the bytes of a connection into messages."""

    def __init__(self, json_bytes_max: int) -> None:
        self._json_bytes_max = json_bytes_max
        self.unfinished = bytearray()
        self._scan: _MessagePackScan | _JsonScan | None = None

    def messages(self, data: bytes) -> Iterator[bytes]:
        """Yields the messages that `data` completes. Raises `MalformedInput`."""
        self.unfinished += data
        start = 0
        for first, stop in self._spans(self.unfinished):
            yield bytes(memoryview(self.unfinished)[first:stop])
            start = stop
        if self._scan is None:
            self.unfinished.clear()
        elif start:
            del self.unfinished[:start]
            self._scan.move(start)

    def ends(self, waiting: bytes) -> Iterator[int]:
        """Yields where messages end in `waiting`, which is not received yet."""
        scan = self._scan
        self._scan = copy.copy(scan)
        try:
            for _, stop in self._spans(self.unfinished + waiting):
                yield stop - len(self.unfinished)
        except MalformedInput:
            yield len(waiting)  # it ends the connection, and is not to be waited for
        finally:
            self._scan = scan

    def _spans(self, buffer: bytearray) -> Iterator[tuple[int, int]]:
        start = 0
        while True:
            if self._scan is None:
                while start < len(buffer) and buffer[start] in _SPACE:
                    start += 1
                if start == len(buffer):
                    return
                self._scan = self._new_scan(buffer[start], start)
            scan = self._scan
            stop = scan.end(buffer)
            if stop is None:
                return
            self._scan = None
            yield scan.start, stop
            start = stop

    def _new_scan(self, first: int, place: int) -> "_MessagePackScan | _JsonScan":
        if first == _JSON_ARRAY:
            return _JsonScan(place, self._json_bytes_max)
        if first == _NIL or is_array(first):
            return _MessagePackScan(place)
        raise MalformedInput(
            f"a message begins with 0x{first:02x}; expected an array, in MessagePack or JSON"
        )


class ForwardReceiver:
    """Turns the bytes of one connection into records and chunks, wherever they were cut.

    A message with the option `chunk` is a `Chunk`, whose answer is its ack; the records of others
    are `Lines`. Keeps at most one unfinished message, of at most `MESSAGE_BYTES_MAX`, and parts of
    split lines (`SplitLines`). Those of a chunk are not kept: their ack says that they are on disk.
    O(bytes).
    """

    awaits_opening = False  # there is no hello and no request in this protocol
    is_inside_hello = False

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._framing = _Framing(max_record + _JSON_AROUND_RECORD_BYTES)
        self._split_lines = SplitLines(max_record)
        self._is_closed = False

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes of a message that is not complete, and of parts of split lines."""
        return len(self._framing.unfinished) + self._split_lines.held_bytes

    @property
    def has_parts(self) -> bool:
        """Whether it keeps parts of split lines."""
        return self._split_lines.held_bytes > 0

    def old_parts(self) -> list[Event]:
        """Returns the parts that were there at the previous call too, and keeps them no more."""
        return _lines(self._split_lines.give_up_old())

    def parts(self) -> list[Event]:
        """Returns all parts, and keeps none."""
        return _lines(self._split_lines.give_up())

    def opening(self, waiting: bytes) -> Opening:
        """Returns `Opening.RECORD`: every message is of records."""
        return Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """Returns the records and chunks that `data` completes."""
        if self._is_closed:
            return []
        events: list[Event] = []
        lines: list[bytes] = []
        try:
            for encoded in self._framing.messages(data):
                message = _message_of(encoded)
                if message is None:
                    continue
                found, too_large = self._lines_of(message)
                if message.chunk is None:
                    lines += found
                if lines and (message.chunk is not None or too_large):
                    events += _lines(lines)
                    lines = []
                if message.chunk is not None:
                    answer = _ack(message.chunk, is_json=encoded[0] == _JSON_ARRAY)
                    digest = blake2b(encoded, digest_size=_DIGEST_BYTES).digest()
                    events.append(Chunk(b"".join(found), too_large, answer, digest))
                else:
                    events += [TooLarge()] * too_large
        except MalformedInput as error:
            self._is_closed = True
            self.drop_unfinished()
            return [*events, *_lines(lines), *self.parts(), Malformed(str(error))]
        return events + _lines(lines)

    def end(self) -> list[Event]:
        """Returns the parts; a message that is cut off is sent again, on another connection."""
        self.drop_unfinished()
        return self.parts()

    def drop_unfinished(self) -> int:
        """Discards an unfinished message. Returns how many bytes it had."""
        dropped = len(self._framing.unfinished)
        self._framing = _Framing(self._max_record + _JSON_AROUND_RECORD_BYTES)
        return dropped

    def whole_bytes(self, waiting: bytes) -> int:
        """Returns how many bytes of `waiting` belong to complete messages."""
        return max(self._framing.ends(waiting), default=0)

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """Returns the size of the first `records` messages in `waiting`; all of it if fewer."""
        for count, stop in enumerate(self._framing.ends(waiting), 1):
            if count == records:
                return stop
        return len(waiting)

    def _lines_of(self, message: "_Message") -> tuple[list[bytes], int]:
        """Returns the lines of a message's records, and how many others are too large."""
        lines: list[bytes] = []
        parts: dict[int, Part] = {}  # of `lines`, by index
        too_large = size_bytes = 0
        tag = _encode(message.tag)
        for count, entry in enumerate(message.entries, 1):
            if count > ENTRIES_MAX:
                raise MalformedInput(f"a message has more than {ENTRIES_MAX} entries")
            # A record of so many bytes is not decoded: it may take a hundred times the memory.
            if isinstance(entry, bytes) and len(entry) > self._max_record:
                too_large += 1
                continue
            line, part = _line_of(entry, tag)
            size_bytes += len(line)
            if size_bytes > RECORDS_BYTES_MAX:
                raise MalformedInput(
                    f"the records of a message are larger than {RECORDS_BYTES_MAX} bytes as JSON"
                )
            if len(line) > self._max_record:
                too_large += 1
            else:
                if part is not None:
                    parts[len(lines)] = part
                lines.append(line + b"\n")
        return self._joined(lines, parts, message) if parts else lines, too_large

    def _joined(
        self, lines: Sequence[bytes], parts: Mapping[int, Part], message: "_Message"
    ) -> list[bytes]:
        """Returns the lines of a message without those parts that are kept for later."""
        is_chunk = message.chunk is not None
        split_lines = SplitLines(self._max_record) if is_chunk else self._split_lines
        joined: list[bytes] = []
        for index, line in enumerate(lines):
            part = parts.get(index)
            joined += [line] if part is None else split_lines.take(part, line)
        return joined + split_lines.give_up() if is_chunk else joined


class _Message(NamedTuple):
    """A message. Its entries are encoded, or decoded from JSON."""

    tag: str
    entries: Iterable[object]
    chunk: str | None


def _message_of(encoded: bytes) -> _Message | None:
    """Decodes a message; None for a heartbeat. Raises `MalformedInput`."""
    if encoded[0] == _NIL:
        return None
    if encoded[0] == _JSON_ARRAY:
        return _json_message(encoded)
    _, place = header(encoded)
    tag, first, *rest = _parts_of_message(list(islice(split(encoded[place:]), _PARTS_MAX)))
    if not is_text(tag[0]):
        raise MalformedInput("the tag of a message is not text")
    entries: Iterable[object]
    if is_array(first[0]):
        options = _options(rest)
        entries = _entries_of_array(first)
    elif is_text(first[0]):
        options = _options(rest)
        entries = _packed_entries(first[header(first)[1] :], options)
    else:
        options = _options(rest[1:])
        entries = [b"\x92" + first + _record_of_message(rest)]
    return _message(json_value(tag), entries, options)


def _parts_of_message(parts: list[_Part]) -> list[_Part]:
    if len(parts) <= 1:
        raise MalformedInput("a message has no entries")
    return parts


def _record_of_message(rest: Sequence[_Part]) -> _Part:
    if not rest:
        raise MalformedInput("a message of one entry has no record")
    return rest[0]


def _json_message(encoded: bytes) -> _Message:
    try:
        encoded.decode()
        parts = msgspec.json.decode(encoded, type=list)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(f"a message is not JSON: {error}") from None
    tag, first, *rest = _parts_of_message(parts)
    if isinstance(first, list):
        return _message(tag, first, rest[0] if rest else None)
    return _message(tag, [[first, _record_of_message(rest)]], rest[1] if rest[1:] else None)


def _message(tag: object, entries: Iterable[object], options: object) -> _Message:
    if not isinstance(tag, str):
        raise MalformedInput("the tag of a message is not text")
    options = options if isinstance(options, dict) else {}
    chunk = options.get("chunk")
    if chunk is not None and not (
        isinstance(chunk, str) and len(chunk.encode()) <= CHUNK_ID_BYTES_MAX
    ):
        raise MalformedInput(f"a chunk's id is not text of at most {CHUNK_ID_BYTES_MAX} bytes")
    if options.get("fluent_signal"):
        entries = ()  # metrics or traces, which are no records
    return _Message(tag, entries, chunk)


def _options(parts: Sequence[bytes]) -> dict[str, object]:
    if parts and len(parts[0]) > OPTIONS_BYTES_MAX:
        raise MalformedInput(f"the options of a message are larger than {OPTIONS_BYTES_MAX} bytes")
    options = json_value(parts[0]) if parts else None
    if not isinstance(options, dict):
        return {}
    if "chunk" not in options and (binary := options.get("chunk" + BINARY_SUFFIX)):
        options["chunk"] = [binary]  # is no text, and must not look like no id at all
    return options


def _entries_of_array(encoded: bytes) -> Iterable[bytes]:
    _check_values(encoded)
    count, place = header(encoded)
    return _raws(encoded[place:], count) or split(encoded[place:])


def _packed_entries(packed: bytes, options: dict[str, object]) -> Iterable[bytes]:
    compression = options.get("compressed")
    if compression in _COMPRESSIONS:
        packed = _decompressed(packed, str(compression))
    _check_values(packed)
    count = options.get("size")
    # Some clients write the number of bytes.
    return (isinstance(count, int) and _raws(packed, count)) or _with_rest(packed)


def _check_values(encoded: bytes) -> None:
    if has_more_values(encoded, VALUES_MAX):
        raise MalformedInput(f"a message has more than {VALUES_MAX} values")


def _raws(packed: bytes, count: int) -> list[bytes] | None:
    """Returns the values in `packed` if they are exactly `count`; None if that cannot be said.

    Takes a tenth of the time of `split`.
    """
    if not 0 < count * _ENTRY_BYTES_MEAN_MIN <= len(packed):
        return None
    try:
        encoded = b"\xdd%s%s" % (count.to_bytes(4, "big"), packed)
        return [bytes(entry) for entry in _raws_decoder.decode(encoded)]
    except (msgspec.MsgspecError, RecursionError):
        return None


def _with_rest(packed: bytes) -> Iterator[bytes]:
    """Yields the entries of `packed`; the last one may be bytes that are none."""
    place = 0
    try:
        for entry in split(packed):
            place += len(entry)
            yield entry
    except MalformedInput:
        yield packed[place:]


def _decompressed(packed: bytes, compression: str) -> bytes:
    decompressor = Decompressor(compression)
    content = bytearray()
    for piece in decompressor.receive(packed):
        content += piece
        if len(content) > MESSAGE_BYTES_MAX:
            raise MalformedInput(
                f"a message is larger than {MESSAGE_BYTES_MAX} bytes when decompressed"
            )
    decompressor.end()
    return bytes(content)


def _ack(chunk: str, *, is_json: bool) -> bytes:
    answer = {"ack": chunk}
    return msgspec.json.encode(answer) if is_json else msgspec.msgpack.encode(answer)


def _lines(lines: Sequence[bytes]) -> list[Event]:
    return [Lines(b"".join(lines))] if lines else []


def _line_of(entry: object, tag: bytes) -> tuple[bytes, Part | None]:
    """Returns the record of an entry as a line of JSON, and which part it is; `tag` is JSON too."""
    parts = _decoded(entry) if isinstance(entry, bytes) else entry
    line, part = b"", None
    if isinstance(parts, list) and len(parts) > 1 and isinstance(parts[1], dict):
        time, metadata = parts[0], None
        if isinstance(time, list):
            time, metadata = (*time, None, None)[:2]
        line = _record(_time_text(time), tag, metadata, parts[1])
        part = part_of(parts[1], tag)
    if not line or exceeds_limits(line):
        raw = entry if isinstance(entry, bytes) else _encode(entry)
        return _record(None, tag, None, {_RAW_ENTRY: b64encode(raw).decode()}), None
    return line, part


def _decoded(entry: bytes) -> object:
    try:
        parts: list[Any] = _entry_decoder.decode(entry)
        if _is_plain(parts[1]) and _is_plain_time(parts[0]):
            return parts
    except _NOT_PLAIN:
        pass
    try:
        return times_and_json(entry)
    except MalformedInput:
        return None


def _is_plain_time(time: object) -> bool:
    if isinstance(time, list):
        return bool(time) and _is_plain_time(time[0]) and _are_plain(time[1:])
    return type(time) is EventTime or type(time) in _SCALARS


def _is_plain(value: object) -> bool:
    """Whether JSON has this value, as it is."""
    if isinstance(value, dict):
        return set(map(type, value)) <= _KEYS and _are_plain(value.values())
    return _are_plain(value) if isinstance(value, list) else type(value) in _SCALARS


def _are_plain(values: Collection[object]) -> bool:
    return set(map(type, values)) <= _SCALARS or all(map(_is_plain, values))


def _time_text(time: object) -> object:
    """Returns an entry's time as text; what is no time, or after the year 9999, as it is."""
    if isinstance(time, EventTime):
        return format_timestamp(time.time_ns)
    if isinstance(time, (int, float)) and not isinstance(time, bool):
        try:
            return format_timestamp(int(time * 1_000_000_000))
        except (ValueError, OverflowError, OSError):
            pass
    return time


def _record(time: object, tag: bytes, metadata: object, fields: dict[str, object]) -> bytes:
    """Returns a record as JSON. Fields with a name that is taken get a `_` before it."""
    taken = ("time", "tag", "metadata") if metadata else ("time", "tag")
    if not fields.keys().isdisjoint(taken):
        fields = {
            free_name(f"_{name}", fields) if name in taken else name: value
            for name, value in fields.items()
        }
    start = b'{"tag":%s' % tag if time is None else b'{"time":%s,"tag":%s' % (_encode(time), tag)
    if metadata:
        start += b',"metadata":%s' % _encode(metadata)
    encoded = _encode(fields)
    return start + (b"," if fields else b"") + encoded[1:]


PROTOCOL = WireProtocol("forward", ("stream",), ForwardReceiver, NoAnswers(), has_chunks=True)
