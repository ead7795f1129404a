"""The fields of stored lines: decoded many at a time, chosen by name, made text. No I/O.

A number stays as it is written, since Python cannot represent every number of JSON: integers are
`int`, all others `Raw`. A line that msgspec does not decode (half of a surrogate pair, thousands of
digits, very deep nesting; only earlier versions stored these) is decoded field by field, and its
objects and numbers stay JSON.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
from msgspec import Raw

from logengine.format.block import Rows
from logengine.format.json_object import decode_string, stored_fields
from logengine.format.record import ENVELOPE_NAMES
from logengine.printable import escape

Fields = dict[str, Any]

# Of the envelope, people are shown when and by whom; what an erasure left is content.
UNSHOWN_NAMES = tuple(name for name in ENVELOPE_NAMES if name != "_erased")
# What Python's recursion, or msgspec, does not do.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
# Deeper objects are shown as JSON.
FLATTENED_LEVELS_MAX = 16
_NOTHING = object()

_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=Raw)


def decode(rows: Rows) -> list[Fields]:
    """Returns the fields of each row. If a key occurs twice, the last one counts."""
    try:
        return _decoder.decode_lines(rows.body)
    except UNDECODABLE:
        return [decode_line(line) for line in rows.lines]


def decode_line(line: bytes) -> Fields:
    """Returns the fields of one line, as `decode` does."""
    try:
        return _decoder.decode(line)
    except UNDECODABLE:
        return decode_exactly(line)


def decode_exactly(line: bytes) -> Fields:
    """Returns the fields of any stored line: only its strings are decoded."""
    found = stored_fields(line) or {}
    return {
        name: decode_string(bytes(value)) if bytes(value).startswith(b'"') else value
        for name, value in found.items()
    }


class FieldChoice:
    """Which fields are shown: `only` these, in this order, or all; none of those in `hidden`.

    A name such as `http.status` is a field of that name, or `status` in the object `http`. A name
    of an object means all that is in it.
    """

    def __init__(self, only: Sequence[str] = (), hidden: Iterable[str] = ()) -> None:
        self.only = tuple(dict.fromkeys(only))
        self.hidden = frozenset(hidden)

    def shows(self, path: str) -> bool:
        """Returns whether the field is not hidden, and nothing that it is in."""
        if not self.hidden:
            return True
        stop = path.find(".")
        while stop >= 0:
            if path[:stop] in self.hidden:
                return False
            stop = path.find(".", stop + 1)
        return path not in self.hidden

    def chosen(self, fields: Fields, *, flat: bool = True) -> Iterator[tuple[str, Any]]:
        """Yields the fields that are shown: name and value.

        With `flat`, objects as their fields. Without it, the objects that contain a hidden field
        are shown without it.
        """
        if self.only:
            wanted: Iterable[tuple[str, Any]] = (
                (name, value)
                for name in self.only
                if (value := field(fields, name, _NOTHING)) is not _NOTHING
            )
        else:
            wanted = fields.items()
        if flat:
            yield from (each for each in flattened(wanted) if self.shows(each[0]))
        else:
            yield from self._visible(wanted)

    def _visible(
        self, fields: Iterable[tuple[str, Any]], prefix: str = ""
    ) -> Iterator[tuple[str, Any]]:
        for name, value in fields:
            path = prefix + name
            if not self.shows(path):
                continue
            if self.hidden and type(value) is dict:
                yield name, dict(self._visible(value.items(), f"{path}."))
            else:
                yield name, value


ALL_FIELDS = FieldChoice()


def field(fields: Mapping[str, Any], path: str, absent: Any = None) -> Any:
    """Returns the value of a field, or of one in an object or array; `absent` if there is none."""
    if path in fields:
        return fields[path]
    stop = path.find(".")
    while stop >= 0:
        inside = fields.get(path[:stop])
        rest = path[stop + 1 :]
        if isinstance(inside, list) and rest.isdecimal() and rest.isascii():
            place = int(rest[:9])
            if place < len(inside):
                return inside[place]
        if isinstance(inside, dict):
            found = field(inside, rest, _NOTHING)
            if found is not _NOTHING:
                return found
        stop = path.find(".", stop + 1)
    return absent


def flattened(
    fields: Iterable[tuple[str, Any]], levels: int = FLATTENED_LEVELS_MAX
) -> Iterator[tuple[str, Any]]:
    """Yields fields, each object as its own fields: `http.status`. Empty objects stay."""
    for name, value in fields:
        if type(value) is dict and value and levels:
            yield from flattened(
                ((f"{name}.{key}", each) for key, each in value.items()), levels - 1
            )
        else:
            yield name, value


def with_place(stream: str, seq: int, fields: Fields) -> Fields:
    """Returns the fields with `_stream` and `_seq` in front."""
    return {"_stream": stream, "_seq": seq, **fields}


def text_of(value: Any) -> str:
    """Returns a value as text: a string without quotes, everything else as JSON. Not escaped."""
    if isinstance(value, str):
        return value
    if isinstance(value, Raw):
        return str(value, "utf-8", "backslashreplace")
    return msgspec.json.encode(value).decode()


def quoted_where_needed(value: Any) -> str:
    """Returns a value, escaped, in quotes if it could look like more than one field."""
    text = text_of(value)
    if not isinstance(value, str):
        return escape(text)
    if text.isascii() and text.isprintable():
        if " " not in text and '"' not in text and text:
            return text
    elif text.split() == [text] and '"' not in text:
        return escape(text)
    return '"' + escape(text.replace('"', '\\"')) + '"'


def name_of(path: str) -> str:
    """Returns the name of a field, escaped, in quotes if it could look like something else."""
    return quoted_where_needed(path) if "=" not in path else f'"{escape(path)}"'.replace("=", "\\=")


def message_name(fields: Mapping[str, Any]) -> str | None:
    """Returns the name of the field that is the message; None if there is none."""
    # Not a loop over `MESSAGE_FIELDS`: it is called for each row.
    if "event" in fields:
        return "event"
    if "message" in fields:
        return "message"
    return "msg" if "msg" in fields else None


def message_of(fields: Fields) -> str:
    """Removes the message from `fields` and returns it; empty if there is none. Not escaped."""
    name = message_name(fields)
    return "" if name is None else text_of(fields.pop(name))


def rest_of(fields: Fields) -> Iterator[tuple[str, Any]]:
    """Yields the fields that are not in the envelope."""
    return ((name, value) for name, value in fields.items() if name not in UNSHOWN_NAMES)


def names_in(texts: Iterable[str]) -> list[str]:
    """Returns the names in texts such as `a,b.c`."""
    names = chain.from_iterable(text.split(",") for text in texts)
    return [stripped for name in names if (stripped := name.strip())]
