"""MessagePack that arrives in pieces, and values that are not quite JSON.

msgspec decodes whole values of valid text, and most are. `skip` finds where a value ends, without
decoding it and however deep it is. `json_value` decodes what msgspec refuses, or what JSON does not
have: text that is not UTF-8, binary, extension types, and keys that are not text.
Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import contextlib
import math
import struct
from base64 import b64encode
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from logengine.errors import MalformedInput
from logengine.format.json_object import NESTING_MAX
from logengine.format.record import readable_text
from logengine.format.timestamp import format_timestamp

# The name of a field whose value is binary ends with this, and its value is base64.
BINARY_SUFFIX = "_base64"
_NO_VALUE = "0xc1 is not the beginning of a MessagePack value"
EVENT_TIME = 0  # the extension type of Fluentd's times
_EVENT_TIME_BYTES = 8
_NS_PER_S = 1_000_000_000


class _Kind(Enum):
    CONSTANT = auto()
    NUMBER = auto()
    TEXT = auto()  # and binary
    ARRAY = auto()
    MAP = auto()
    EXTENSION = auto()


class _Form(NamedTuple):
    """What a first byte says. `size` is in bytes or entries, unless `length_bytes` of it follow."""

    kind: _Kind
    size: int = 0
    length_bytes: int = 0
    constant: object = None
    format: str = ""  # of `struct`, of a number

    @property
    def fixed_bytes(self) -> int:
        """How many bytes such a value has, without the values in it; 0 if its length follows."""
        if self.length_bytes:
            return 0
        is_container = self.kind in _VALUES_PER_ENTRY
        return 1 + (self.kind is _Kind.EXTENSION) + (0 if is_container else self.size)


_VALUES_PER_ENTRY = {_Kind.ARRAY: 1, _Kind.MAP: 2}


def _forms() -> dict[int, _Form]:
    forms = {byte: _Form(_Kind.CONSTANT, constant=byte) for byte in range(0x80)}
    forms |= {byte: _Form(_Kind.CONSTANT, constant=byte - 256) for byte in range(0xE0, 0x100)}
    forms |= {0x80 + size: _Form(_Kind.MAP, size) for size in range(16)}
    forms |= {0x90 + size: _Form(_Kind.ARRAY, size) for size in range(16)}
    forms |= {0xA0 + size: _Form(_Kind.TEXT, size) for size in range(32)}
    for byte, constant in ((0xC0, None), (0xC2, False), (0xC3, True)):
        forms[byte] = _Form(_Kind.CONSTANT, constant=constant)
    for byte, kind in ((0xC4, _Kind.TEXT), (0xC7, _Kind.EXTENSION), (0xD9, _Kind.TEXT)):
        for power in range(3):
            forms[byte + power] = _Form(kind, length_bytes=1 << power)
    for byte, kind in ((0xDC, _Kind.ARRAY), (0xDE, _Kind.MAP)):
        for power in range(2):
            forms[byte + power] = _Form(kind, length_bytes=2 << power)
    for byte, code in enumerate("fdBHIQbhiq", 0xCA):
        size = struct.calcsize(f">{code}")
        forms[byte] = _Form(_Kind.NUMBER, size, format=f">{code}")
    return forms | {0xD4 + power: _Form(_Kind.EXTENSION, 1 << power) for power in range(5)}


_FORMS = _forms()
_NEVER_USED = 0xC1
# The same for `skip`, by the first byte: bytes without the values inside, 0 if the length follows;
# and how the number of values that are left changes.
_FIXED_BYTES = [_FORMS[byte].fixed_bytes if byte in _FORMS else 0 for byte in range(256)]
_VALUES_CHANGE = [
    _FORMS[byte].size * _VALUES_PER_ENTRY.get(_FORMS[byte].kind, 0) - 1 if byte in _FORMS else 0
    for byte in range(256)
]
_EACH_IS_ONE = [-1] * 256


def is_array(first: int) -> bool:
    """Whether a value that begins with this byte is an array."""
    return first in _FORMS and _FORMS[first].kind is _Kind.ARRAY


def is_text(first: int) -> bool:
    """Whether a value that begins with this byte is text or binary."""
    return first in _FORMS and _FORMS[first].kind is _Kind.TEXT


def header(data: bytes) -> tuple[int, int]:
    """Returns the length of a text, binary or array, and where its content begins."""
    form = _FORMS[data[0]]
    stop = 1 + form.length_bytes
    return int.from_bytes(data[1:stop], "big") if form.length_bytes else form.size, stop


def skip(
    data: bytes | bytearray, place: int, values: int = 1, *, are_counted: bool = False
) -> tuple[int, int]:
    """Skips `values` values from `place` on, and what is inside them, unless that counts too.

    Returns where it stopped, and how many values are still to be skipped from there. If `data` ends
    before, it can continue there with more data; the place may then be after the end of `data`.
    O(bytes). Raises `MalformedInput`.
    """
    size_bytes = len(data)
    changes = _EACH_IS_ONE if are_counted else _VALUES_CHANGE
    while values and place < size_bytes:
        byte = data[place]
        if step := _FIXED_BYTES[byte]:
            place += step
            values += changes[byte]
            continue
        if byte == _NEVER_USED:
            raise MalformedInput(_NO_VALUE)
        kind, _, length_bytes, *_ = _FORMS[byte]
        start = place + 1 + length_bytes
        if start > size_bytes:
            break
        length = int.from_bytes(data[place + 1 : start], "big")
        place, values = start, values - 1
        if kind in _VALUES_PER_ENTRY:
            values += 0 if are_counted else length * _VALUES_PER_ENTRY[kind]
        else:
            place += length + (kind is _Kind.EXTENSION)
    return place, values


def has_more_values(data: bytes, most: int) -> bool:
    """Whether `data` has more than `most` values, with all those that are inside others.

    Values after a byte that begins none do not count. O(bytes).
    """
    if len(data) <= most:
        return False
    place = 0
    with contextlib.suppress(MalformedInput):
        # What is inside a value follows its header, as if it were beside it.
        place, most = skip(data, place, most, are_counted=True)
    return not most and place < len(data)


def split(data: bytes) -> Iterator[bytes]:
    """Yields each of the values in `data`, still encoded. Raises `MalformedInput`."""
    start = 0
    while start < len(data):
        stop, values = skip(data, start)
        if values or stop > len(data):
            raise MalformedInput("the last MessagePack value is cut off")
        yield data[start:stop]
        start = stop


class EventTime(NamedTuple):
    """A time of Fluentd's, in nanoseconds since the epoch."""

    time_ns: int


class _Binary(NamedTuple):
    content: bytes


def extension(code: int, content: bytes | memoryview) -> object:
    """Returns the value of an extension type; any but Fluentd's time becomes an object."""
    if code == EVENT_TIME and len(content) == _EVENT_TIME_BYTES:
        seconds, nanoseconds = struct.unpack(">II", content)
        return EventTime(seconds * _NS_PER_S + nanoseconds)
    return {"ext": code, "base64": b64encode(content).decode()}


def json_value(data: bytes) -> object:
    """Decodes one value into one that JSON has.

    Text and binary become text if they are UTF-8. If not, they become base64: in a map under a key
    that ends with `_base64`, elsewhere in an object. Times become text, and numbers that JSON does
    not have null. Raises `MalformedInput`, also if the value is nested too deep.
    """
    value = _Decoder(data).value(0)
    return _marked(value) if isinstance(value, _Binary) else value


def times_and_json(data: bytes) -> object:
    """Does the same, but keeps a time as an `EventTime`, if it is the value or in its array."""
    return _Decoder(data, keeps_times=True).value(0)


class _Decoder:
    def __init__(self, data: bytes, *, keeps_times: bool = False) -> None:
        self._data = data
        self._place = 0
        self._keeps_times = keeps_times

    def value(self, depth: int) -> object:
        if depth > NESTING_MAX:
            raise MalformedInput(f"is nested in more than {NESTING_MAX} levels")
        form = _FORMS.get(self._take(1)[0])
        if form is None:
            raise MalformedInput(_NO_VALUE)
        length = form.size
        if form.length_bytes:
            length = int.from_bytes(self._take(form.length_bytes), "big")
        match form.kind:
            case _Kind.NUMBER:
                return self._number(form)
            case _Kind.TEXT:
                return self._text(length)
            case _Kind.ARRAY:
                return self._array(length, depth)
            case _Kind.MAP:
                return self._map(length, depth)
            case _Kind.EXTENSION:
                return self._extension(length, depth)
        return form.constant

    def _number(self, form: _Form) -> float | None:
        number: float = struct.unpack(form.format, self._take(form.size))[0]
        return number if math.isfinite(number) else None

    def _take(self, size_bytes: int) -> bytes:
        start, self._place = self._place, self._place + size_bytes
        if self._place > len(self._data):
            raise MalformedInput("the MessagePack value is cut off")
        return self._data[start : self._place]

    def _text(self, size_bytes: int) -> str | _Binary:
        content = self._take(size_bytes)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return _Binary(content)

    def _extension(self, size_bytes: int, depth: int) -> object:
        code = int.from_bytes(self._take(1), "big", signed=True)
        found = extension(code, self._take(size_bytes))
        if isinstance(found, EventTime) and not (self._keeps_times and depth <= 1):
            return format_timestamp(found.time_ns)
        return found

    def _array(self, length: int, depth: int) -> list[object]:
        values: list[object] = []
        # Not a comprehension: each of its frames would count for the limit of recursion.
        for _ in range(length):
            value = self.value(depth + 1)
            values.append(_marked(value) if isinstance(value, _Binary) else value)
        return values

    def _map(self, length: int, depth: int) -> dict[str, object]:
        fields: dict[str, object] = {}
        binary: dict[str, bytes] = {}
        for _ in range(length):
            key = _key(self.value(depth + 1))
            value = self.value(depth + 1)
            if isinstance(value, _Binary):
                binary[key] = value.content
            else:
                fields[key] = value
        for key, content in binary.items():
            fields[free_name(key + BINARY_SUFFIX, fields)] = b64encode(content).decode()
        return fields


def free_name(name: str, fields: dict[str, object]) -> str:
    """Returns `name` with as many `_` before it as it takes to be no key of `fields`."""
    while name in fields:
        name = f"_{name}"
    return name


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, _Binary):
        return readable_text(key.content)
    return msgspec.json.encode(key).decode()


def _marked(value: _Binary) -> dict[str, str]:
    return {"base64": b64encode(value.content).decode()}
