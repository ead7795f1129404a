"""Encodes a record for the wire, whatever values the application put into it. No I/O.

msgspec encodes the types that it knows; other values become their `repr`. If that still fails (a
lone surrogate, an object that contains itself), the record is converted value by value.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from logengine.format.json_object import exceeds_limits, object_fields
from logengine.format.record import BLANK

# Deeper than people nest, and shallower than what the daemon admits as an object.
_DEPTH_MAX = 100


def encode_record(record: Mapping[str, Any] | bytes) -> bytes:
    """Returns the line for a record, with its newline; empty for blank bytes.

    Any mapping becomes a JSON object: see `docs/clients.md` for how values are stored. Bytes become
    one line: a JSON object, which may be spread over several lines, or text. Raises `TypeError`
    for anything else.
    """
    if type(record) is not dict:
        if isinstance(record, bytes):
            return encode_line(record)
        if not isinstance(record, Mapping):
            raise TypeError(f"a record is a dict or bytes, not {type(record).__name__}")
        # msgspec would encode a mapping that is not a dict as its repr.
        record = dict(record)
    try:
        line = _encode(record)
    except Exception:  # noqa: BLE001 - a value's own code may raise anything
        line = _encode(_plain(record, ()))
    # A `Raw` value may contain anything, even a newline that would split the record in two. What
    # exceeds the limits would be stored as text.
    if b"\n" in line or exceeds_limits(line):
        line = _encode(_plain(record, ()))
    return line + b"\n"


def encode_line(line: bytes) -> bytes:
    """Returns `line` as one line, with its newline; empty if it is blank."""
    line = line.rstrip(b"\n")
    text = line.strip(BLANK + b"\n")
    if not text:
        return b""
    if b"\n" not in line:
        return line + b"\n"
    # Validate first: the formatter trusts its input.
    if object_fields(text) is None:
        return _encode({"message": line.decode("utf-8", "backslashreplace")}) + b"\n"
    return msgspec.json.format(text, indent=-1) + b"\n"


def represent(value: object) -> str:
    """Returns the `repr` of a value, or a substitute if that raises."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - the application's code may raise anything
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


_encode = msgspec.json.Encoder(enc_hook=represent).encode


def _plain(value: Any, inside: tuple[int, ...]) -> Any:
    """Returns `value` in JSON's types; `inside` has the ids of the containers around it."""
    try:
        return _converted(value, inside)
    except Exception:  # noqa: BLE001 - code of the value's own type may raise anything
        return _text(represent(value))


def _converted(value: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return _number(value)
    if id(value) in inside or len(inside) == _DEPTH_MAX:
        return "..."  # as Python prints a list that contains itself
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        # Copy first: another thread may be changing it.
        return {_key(key): _plain(item, inside) for key, item in list(value.items())}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, inside) for item in list(value)]
    return _known(value)


def _known(value: Any) -> Any:
    """Returns what msgspec makes of a value that contains no others, or its `repr`."""
    if isinstance(value, msgspec.Raw):
        return represent(bytes(value))
    try:
        return msgspec.json.decode(_encode(value))
    except Exception:  # noqa: BLE001 - whatever fails, the repr remains
        return _text(represent(value))


def _key(key: Any) -> str:
    return _text(key if isinstance(key, str) else represent(key))


def _text(text: str) -> str:
    # A lone surrogate cannot be encoded; it stays readable as \ud800.
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _number(value: float | None) -> Any:
    try:
        _encode(value)
    except Exception:  # noqa: BLE001 - an int with more digits than Python converts
        return hex(value) if isinstance(value, int) else represent(value)
    return value
