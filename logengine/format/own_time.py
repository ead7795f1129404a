"""When a record happened: its own `time`, where it has one in a known form, else its `_ts`. No I/O.

    2026-11-23T20:00:00.123+01:00     RFC 3339, also with a space or a comma; with an offset
    23/Nov/2026:20:00:00 +0000        as in access logs
    1763928000  1763928000.5          a number of seconds since 1970, or of milliseconds,
    1763928000123                     microseconds or nanoseconds: 10, 13, 16 or 19 digits

A time without an offset is not known: what it means depends on who reads it. Nor is one before
1971, as programs write that know no time. `docs/reading.md` is the specification.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import UNSET, Raw, UnsetType

from logengine.format.json_object import stored_fields
from logengine.format.segment import timestamp_of
from logengine.format.text_time import time_with_offset
from logengine.format.timestamp import TIMESTAMP_CHARACTERS, format_timestamp, is_timestamp

TIME_FIELD = "time"

_KEY = b'"time"'
_ESCAPE = b"\\u"  # may be a part of the key
_EARLIEST = "1971"
_VALUE_BYTES_MAX = 64
_QUOTE = b'"'
_NUMBER = re.compile(rb"([1-9][0-9]{9}(?:[0-9]{3}|[0-9]{6}|[0-9]{9})?)(?:\.([0-9]+))?")
_UNIT_NS_BY_DIGITS = {10: 10**9, 13: 10**6, 16: 10**3, 19: 1}
_FRACTION_DIGITS = 9
# Decoding holds the GIL: other work waits a fraction of a millisecond for a piece.
_PIECE_BYTES = 32 * 1024


class _Record(msgspec.Struct, gc=False):
    time: Raw | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Record)


def record_time(line: bytes) -> str:
    """Returns the timestamp of a stored line: its own time if that is known, else its `_ts`."""
    if _KEY not in line and _ESCAPE not in line:
        return timestamp_of(line)
    return _own_time(_value(line)) or timestamp_of(line)


def record_times(body: bytes, lines: Sequence[bytes]) -> Iterator[str]:
    """Returns `record_time` of each of the `lines`, which are those of `body`."""
    if _KEY not in body and _ESCAPE not in body:
        return map(timestamp_of, lines)
    try:
        records = _decoder.decode_lines(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        records = []
    if len(records) != len(lines):  # one that only earlier versions admitted
        return map(record_time, lines)
    return (
        _own_time(record.time) or timestamp_of(line)
        for record, line in zip(records, lines, strict=True)
    )


def time_bounds(body: bytes, pace: Callable[[int], None]) -> tuple[str, str]:
    """Returns the least and greatest `record_time` in a body of one or more lines.

    `pace` is called with the number of bytes after every piece, and may sleep.
    """
    bounds: list[str] = []
    for piece in _pieces(body):
        times = list(record_times(piece, piece.split(b"\n")[:-1]))
        bounds += [min(times), max(times)]
        pace(len(piece))
    return min(bounds), max(bounds)


def _pieces(body: bytes) -> Iterable[bytes]:
    start = 0
    while start < len(body):
        stop = body.find(b"\n", start + _PIECE_BYTES) + 1 or len(body)
        yield body[start:stop]
        start = stop


def _value(line: bytes) -> Raw | UnsetType:
    try:
        return _decoder.decode(line).time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return (stored_fields(line) or {}).get(TIME_FIELD, UNSET)


def _own_time(value: Raw | UnsetType) -> str | None:
    """Returns the timestamp of a value in JSON; None if it is not a time that is known."""
    if value is UNSET:
        return None
    json = bytes(value)
    if len(json) > _VALUE_BYTES_MAX:
        return None
    if not json.startswith(_QUOTE):
        return _of_number(json)
    try:
        text = msgspec.json.decode(json, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    # Imports and protocols write timestamps: nearly all are one.
    if len(text) == TIMESTAMP_CHARACTERS and is_timestamp(text):
        known: str | None = text
    else:
        known = time_with_offset(text)
    return known if known is not None and known >= _EARLIEST else None


def _of_number(json: bytes) -> str | None:
    found = _NUMBER.fullmatch(json)
    if found is None:
        return None
    digits, fraction = found.groups()
    unit_ns = _UNIT_NS_BY_DIGITS[len(digits)]
    part = int((fraction or b"0").ljust(_FRACTION_DIGITS, b"0")[:_FRACTION_DIGITS])
    return format_timestamp(int(digits) * unit_ns + part * unit_ns // 10**_FRACTION_DIGITS)
