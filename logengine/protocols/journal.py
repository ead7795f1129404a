r"""journald's native protocol: a datagram has the fields of an entry, and no sender is answered.

Implements the daemon's side of `docs/journal.md`, the specification. Source: systemd's "Native
Journal Protocol", and what journald accepts beyond it.

    MESSAGE=it is done\n                                    a field
    DUMP\n<8 bytes: length, little-endian><bytes>\n         a field whose value may have any bytes
    \n                                                      after it, another entry begins
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from logengine.format.record import readable_text
from logengine.format.severity import facility_of, severity_of
from logengine.protocols.messagepack import BINARY_SUFFIX, free_name
from logengine.protocols.wire import Event, Lines, NoAnswers, Opening, TooLarge, WireProtocol

# Of all entries of a datagram together; what comes after them is kept unparsed. journald refuses an
# entry with more.
FIELDS_MAX = 1024
_LENGTH_BYTES = 8
_LF = b"\n"
_LF_BYTE = _LF[0]
_SEPARATOR = re.compile(rb"\n++")
_MESSAGE = "MESSAGE"
_TRUSTED_START = "_"


def _not_empty(text: str) -> str | None:
    return text or None


# Fields that other protocols have too, and how their values are read. A field that occurs more than
# once, or has another value, keeps its name.
_COMMON_FIELDS: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "PRIORITY": ("level", severity_of),
    "SYSLOG_FACILITY": ("facility", facility_of),
    "SYSLOG_IDENTIFIER": ("app", _not_empty),
    "SYSLOG_PID": ("procid", _not_empty),
}

_Values = dict[str, list[bytes]]


class _Entry(NamedTuple):
    """The values of each field, in the order in which they came, and what is no field."""

    values: _Values
    unparsed: bytes = b""


class JournalReceiver:
    """Turns each datagram into the records of its entries.

    Never raises. O(bytes), and at most `FIELDS_MAX` steps.
    """

    awaits_opening = False  # there is no hello and no request in this protocol
    is_inside_hello = False

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._datagram = bytearray()

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes received of a datagram."""
        return len(self._datagram)

    def opening(self, waiting: bytes) -> Opening:
        """Returns `Opening.RECORD`: every datagram is of records."""
        return Opening.RECORD

    def receive(self, data: bytes) -> list[Event]:
        """Keeps `data`: only a whole datagram is parsed."""
        self._datagram += data
        return []

    def end(self) -> list[Event]:
        """Returns the records of the datagram."""
        datagram = bytes(self._datagram)
        self._datagram.clear()
        return list(self._events(datagram))

    def drop_unfinished(self) -> int:
        """Discards what was received. Returns how many bytes it had."""
        dropped = len(self._datagram)
        self._datagram.clear()
        return dropped

    def whole_bytes(self, waiting: bytes) -> int:
        """Returns the size of the datagram `waiting`."""
        return len(waiting)

    def bytes_of(self, waiting: bytes, records: int) -> int:
        """Returns the size of the datagram `waiting`, whose records are not cut apart."""
        return len(waiting)

    def _events(self, datagram: bytes) -> Iterator[Event]:
        lines: list[bytes] = []
        for entry in _entries(datagram):
            line = msgspec.json.encode(_record(entry))
            if len(line) <= self._max_record:
                lines.append(line + _LF)
                continue
            if lines:
                yield Lines(b"".join(lines))
                lines = []
            yield TooLarge()
        if lines:
            yield Lines(b"".join(lines))


def _entries(datagram: bytes) -> Iterator[_Entry]:
    values: _Values = {}
    place = fields = 0
    while place < len(datagram):
        if datagram[place] == _LF_BYTE:
            place = _after_separator(datagram, place)
            if values:
                yield _Entry(values)
                values = {}
            continue
        field = _field(datagram, place) if fields < FIELDS_MAX else None
        if field is None:
            yield _Entry(values, datagram[place:])
            return
        name, value, place = field
        values.setdefault(readable_text(name), []).append(value)
        fields += 1
    if values:
        yield _Entry(values)


def _after_separator(datagram: bytes, place: int) -> int:
    separator = _SEPARATOR.match(datagram, place)
    return separator.end() if separator else place


def _field(datagram: bytes, place: int) -> tuple[bytes, bytes, int] | None:
    """Returns the name and value of the field at `place`, and where the next one begins.

    None if there is no whole field. The LF of the last field may be missing.
    """
    stop = datagram.find(_LF, place)
    line_stop = len(datagram) if stop < 0 else stop
    equals = datagram.find(b"=", place, line_stop)
    if equals >= 0:
        return datagram[place:equals], datagram[equals + 1 : line_stop], line_stop + 1
    start = line_stop + 1 + _LENGTH_BYTES
    value_stop = start + int.from_bytes(datagram[line_stop + 1 : start], "little")
    if stop < 0 or start > len(datagram) or value_stop > len(datagram):
        return None
    if datagram[value_stop : value_stop + 1] not in (_LF, b""):
        return None
    return datagram[place:stop], datagram[start:value_stop], value_stop + 1


def _record(entry: _Entry) -> dict[str, object]:
    """Returns the record of an entry. No field is lost: a name that is taken gets a `_` before it.

    The fields that only journald sets are of a sender's choice here, and stay apart.
    """
    record: dict[str, object] = {}
    others: list[tuple[str, list[bytes]]] = []
    for name, values in entry.values.items():
        common = _common_field(name, values)
        if common is None:
            others.append((name, values))
        else:
            record[common[0]] = common[1]
    if _MESSAGE in entry.values:
        _put(record, "message", entry.values[_MESSAGE])
    if entry.unparsed:
        _put(record, "unparsed", [entry.unparsed])
    untrusted: dict[str, object] = {}
    for name, values in others:
        if name.startswith(_TRUSTED_START):
            _put(untrusted, name, values)
    if untrusted:
        record["untrusted"] = untrusted
    for name, values in others:
        if name != _MESSAGE and not name.startswith(_TRUSTED_START):
            _put(record, name, values)
    return record


def _common_field(name: str, values: list[bytes]) -> tuple[str, str] | None:
    """Returns the field that other protocols have in place of this one, and its value."""
    if name not in _COMMON_FIELDS or len(values) > 1:
        return None
    common_name, read = _COMMON_FIELDS[name]
    try:
        value = read(values[0].decode())
    except UnicodeDecodeError:
        return None
    return None if value is None else (common_name, value)


def _put(record: dict[str, object], name: str, values: list[bytes]) -> None:
    """Adds a field: as text if all its values are, else as base64. Several values make a list."""
    try:
        texts = [value.decode() for value in values]
    except UnicodeDecodeError:
        texts = [b64encode(value).decode() for value in values]
        name += BINARY_SUFFIX
    record[free_name(name, record)] = texts[0] if len(texts) == 1 else texts


PROTOCOL = WireProtocol(
    "journal", ("datagram",), JournalReceiver, NoAnswers(), takes_memory_files=True
)
