"""What a record becomes on the wire, whatever an application put into it. No I/O.

msgspec encodes what it knows; the rest becomes its `repr`. Where even that does not do (a
lone surrogate, an object within itself), the record is gone through value by value.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

# Deeper than people nest, and less than what the daemon takes for no object.
_DEPTH_MAX = 100
_BLANK = b" \t\r"


def encode_record(record: Mapping[str, Any] | bytes) -> bytes:
    """The line for a record, with its newline; empty for bytes that are blank.

    A mapping becomes a JSON object and always can: see `docs/clients.md` for what becomes
    of which value. Bytes are one line: a JSON object, which may be spread over several lines,
    or text. Raises `TypeError` for anything else.
    """
    if type(record) is not dict:
        if isinstance(record, bytes):
            return encode_line(record)
        if not isinstance(record, Mapping):
            raise TypeError(f"a record is a dict or bytes, not {type(record).__name__}")
        # What msgspec makes of a mapping that is no dict is its repr.
        record = dict(record)
    try:
        line = _encode(record)
    except Exception:  # noqa: BLE001 - whatever a value's own code raises
        line = _encode(_plain(record, ()))
    # A `Raw` value may hold anything, also what would make two records of one.
    if b"\n" in line:
        line = _encode(_plain(record, ()))
    return line + b"\n"


def encode_line(line: bytes) -> bytes:
    """`line` as one line, with its newline; empty if it is blank."""
    line = line.rstrip(b"\n")
    if not line.strip(_BLANK + b"\n"):
        return b""
    if b"\n" not in line:
        return line + b"\n"
    try:
        # Checked first: the formatter trusts what it formats.
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        return msgspec.json.format(line, indent=-1) + b"\n"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = line.decode("utf-8", "backslashreplace")
        return _encode({"message": text}) + b"\n"


def represent(value: object) -> str:
    """The `repr` of a value, also of one whose own fails."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - it is the application's code
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


_encode = msgspec.json.Encoder(enc_hook=represent).encode


def _plain(value: Any, inside: tuple[int, ...]) -> Any:
    """`value` as what JSON has; `inside` are the ids of what it lies in."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return _number(value)
    if id(value) in inside or len(inside) == _DEPTH_MAX:
        return "..."  # as Python writes a list that lies in itself
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        # Copied first: another thread may be changing it.
        return {_key(key): _plain(item, inside) for key, item in list(value.items())}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, inside) for item in list(value)]
    return _known(value)


def _known(value: Any) -> Any:
    """What msgspec makes of a value that holds no others, or its `repr`."""
    if isinstance(value, msgspec.Raw):
        return represent(bytes(value))
    try:
        return msgspec.json.decode(_encode(value))
    except Exception:  # noqa: BLE001 - whatever it is, there is always its repr
        return _text(represent(value))


def _key(key: Any) -> str:
    return _text(key if isinstance(key, str) else represent(key))


def _text(text: str) -> str:
    # A lone surrogate cannot be sent; it stays readable as \ud800.
    return text.encode("utf-8", "backslashreplace").decode()


def _number(value: float | None) -> Any:
    try:
        _encode(value)
    except Exception:  # noqa: BLE001 - an int of more digits than Python writes
        return hex(value) if isinstance(value, int) else represent(value)
    return value
