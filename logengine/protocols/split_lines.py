"""Long lines that Docker's `fluentd` driver splits into parts of 16 KiB, joined again.

Each part is a record of its own, with the fields of the others and these, all of them text:
`partial_message`, `partial_id` (of the line), `partial_ordinal` (from 1), `partial_last`.

Source: moby, daemon/logger/fluentd and daemon/logger/copier.go.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from logengine.protocols.messagepack import BINARY_SUFFIX

# Of one sender. A container has two at most, one for each of its outputs.
UNDER_WAY_MAX = 64
# What is held of all of them together, in relation to the longest record.
_HELD_PER_RECORD = 2
_ORDINAL_DIGITS_MAX = 9
_LOG, _LOG_BINARY = "log", "log" + BINARY_SUFFIX
_MARK, _ID, _ORDINAL, _LAST = "partial_message", "partial_id", "partial_ordinal", "partial_last"
_OF_PARTS = frozenset({_MARK, _ID, _ORDINAL, _LAST})
_TRUE = ("true", True)


class _Log(msgspec.Struct):
    """What a part has of its line. All other fields are skipped: they would take much memory."""

    log: object = None
    binary: object = msgspec.field(default=None, name=_LOG_BINARY)


_decoder = msgspec.json.Decoder(dict[str, object])
_log_decoder = msgspec.json.Decoder(_Log)
_encode = msgspec.json.Encoder().encode


class Part(NamedTuple):
    """Which part of which line a record is. The first one has the ordinal 1."""

    line: tuple[object, ...]
    ordinal: int
    is_last: bool


def part_of(fields: Mapping[str, object], tag: bytes) -> Part | None:
    """Returns which part a record with these fields is; None if it is a record of its own."""
    if fields.get(_MARK) not in _TRUE:
        return None
    name, container = fields.get(_ID), fields.get("container_id")
    ordinal = str(fields.get(_ORDINAL))
    if not (isinstance(name, str) and isinstance(container, str | None)):
        return None
    if not (ordinal.isascii() and ordinal.isdigit() and len(ordinal) <= _ORDINAL_DIGITS_MAX):
        return None
    return Part((tag, container, name), int(ordinal), fields.get(_LAST) in _TRUE)


@dataclass
class _UnderWay:
    """The parts of a line whose last one has not come: records as lines of JSON, in order."""

    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    is_old: bool = False


class SplitLines:
    """The lines of one sender whose parts are coming.

    What is not joined is returned as it came: parts out of order, without a first one, or of a line
    that would be longer than `max_record`, and the oldest ones once there are too many. Keeps at
    most `UNDER_WAY_MAX` lines, with twice `max_record` bytes. O(bytes).
    """

    def __init__(self, max_record: int) -> None:
        self._max_record = max_record
        self._under_way: dict[tuple[object, ...], _UnderWay] = {}  # the oldest first
        self.held_bytes = 0

    def take(self, part: Part, record: bytes) -> list[bytes]:
        """Returns the records that are complete, or given up, with `record`, which is a `part`.

        Records are JSON, each with its newline.
        """
        line = self._under_way.get(part.line)
        if part.ordinal != (len(line.parts) + 1 if line else 1):
            return [*self._give_up(part.line), record]
        if line is None:
            line = self._under_way[part.line] = _UnderWay()
        line.parts.append(record)
        line.size_bytes += len(record)
        self.held_bytes += len(record)
        if part.is_last:
            parts = self._give_up(part.line)
            joined = _joined(parts)
            # A record's newline does not count.
            return parts if joined is None or len(joined) > self._max_record + 1 else [joined]
        given_up: list[bytes] = []
        while self._are_too_many():
            given_up += self._give_up(next(iter(self._under_way)))
        return given_up

    def give_up_old(self) -> list[bytes]:
        """Returns the parts of lines that were under way at the previous call too."""
        old = [name for name, line in self._under_way.items() if line.is_old]
        given_up = [part for name in old for part in self._give_up(name)]
        for line in self._under_way.values():
            line.is_old = True
        return given_up

    def give_up(self) -> list[bytes]:
        """Returns all parts, as they came."""
        return [part for name in list(self._under_way) for part in self._give_up(name)]

    def _are_too_many(self) -> bool:
        return (
            len(self._under_way) > UNDER_WAY_MAX
            or self.held_bytes > _HELD_PER_RECORD * self._max_record
        )

    def _give_up(self, name: tuple[object, ...]) -> list[bytes]:
        line = self._under_way.pop(name, None)
        if line is None:
            return []
        self.held_bytes -= line.size_bytes
        return line.parts


def _joined(parts: list[bytes]) -> bytes | None:
    """Returns one record with the fields of the first part; None if a part has no `log`."""
    # Docker cuts after so many bytes, which may be inside a character: such a part is binary.
    pieces = [_log_of(_log_decoder.decode(part)) for part in parts]
    whole = b"".join(piece for piece in pieces if piece is not None)
    if None in pieces:
        return None
    log: tuple[str, str]
    try:
        log = _LOG, whole.decode()
    except UnicodeDecodeError:
        log = _LOG_BINARY, b64encode(whole).decode()
    fields: dict[str, object] = {}
    for name, value in _decoder.decode(parts[0]).items():
        if name in (_LOG, _LOG_BINARY):
            fields[log[0]] = log[1]
        elif name not in _OF_PARTS:
            fields[name] = value
    return _encode(fields) + b"\n"


def _log_of(part: _Log) -> bytes | None:
    text, binary = part.log, part.binary
    if isinstance(text, str) and binary is None:
        return text.encode()
    if isinstance(binary, str) and text is None:
        try:
            return b64decode(binary, validate=True)
        except binascii.Error:
            return None
    return None
