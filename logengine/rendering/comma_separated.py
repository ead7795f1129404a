r"""Records as comma-separated values, with a heading. No I/O.

RFC 4180, except that lines end with a newline alone. Control characters are escaped. There are two
choices of columns; in both, `message` is `event`, `message` or `msg`:

* For people, `CommaSeparated`: the chosen fields, or without a choice `COLUMNS`, in which `fields`
  is the rest of the record as logfmt. One record, one line: a newline in a value is `\n`.
* For other programs, `exported_lines`: senders' fields have no schema, so only the envelope and
  what most records have are columns, and `record` is the whole JSON. Newlines stay in values.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from logengine.format.block import Rows
from logengine.format.json_object import decode_string, stored_fields
from logengine.printable import escape
from logengine.rendering.fields import (
    UNDECODABLE,
    FieldChoice,
    Fields,
    decode_exactly,
    decode_line,
    field,
    flattened,
    message_name,
    message_of,
    rest_of,
    text_of,
    with_place,
)
from logengine.rendering.logfmt import pairs

_OF_THE_RECORD = ("_stream", "_seq", "_ts", "_comm", "_pid", "level")
COLUMNS = (*_OF_THE_RECORD, "message", "fields")
_EXPORTED = (
    *("_stream", "_seq", "_ts", "_pid", "_uid", "_gid", "_comm", "_unit", "_user_unit"),
    *("time", "level"),
)
# The last columns: programs that take columns by their position must still find the others.
_EXPORTED_LAST = ("_addr", "_file")


class CommaSeparated:
    """Renders rows as comma-separated values."""

    def __init__(self, choice: FieldChoice) -> None:
        self._choice = choice
        self._names = [name for name in choice.only or COLUMNS if choice.shows(name)]

    @property
    def heading(self) -> bytes:
        """The names of the columns."""
        return _line(map(escape, self._names))

    def render(self, rows: Rows) -> bytes:
        """See `Rendering`."""
        parts: list[bytes] = []
        for stream, seq, line in zip(rows.streams, rows.seqs, rows.lines, strict=False):
            try:
                fields = with_place(stream, seq, decode_line(line))
                parts.append(_line(map(escape, self._values(fields))))
            except UNDECODABLE:
                exact = with_place(stream, seq, decode_exactly(line))
                parts.append(_line(map(escape, self._values(exact))))
        return b"".join(parts)

    def _values(self, fields: Fields) -> Iterator[str]:
        if self._choice.only:
            for name in self._names:
                value = field(fields, name)
                yield "" if value is None else text_of(value)
            return
        known = {name: text_of(fields.pop(name, "")) for name in _OF_THE_RECORD}
        known["message"] = message_of(fields)
        rest = flattened(rest_of(fields))
        known["fields"] = pairs(each for each in rest if self._choice.shows(each[0]))
        yield from (known[name] for name in self._names)


def exported_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a line with the names of the columns, then the records of `pieces`.

    Each piece is NDJSON and ends with a newline. A string is written without its quotes, other
    values as the JSON that they are; nothing for a key that the record does not have.
    """
    yield _line([*_EXPORTED, "message", "record", *_EXPORTED_LAST])
    for piece in pieces:
        lines = piece.removesuffix(b"\n").split(b"\n")
        yield b"".join([_line(_exported_values(line)) for line in lines])


def _exported_values(line: bytes) -> Iterator[str]:
    fields = stored_fields(line)
    assert fields is not None
    for name in (*_EXPORTED, message_name(fields)):
        yield _exported_value(fields, name)
    yield line.decode()
    for name in _EXPORTED_LAST:
        yield _exported_value(fields, name)


def _exported_value(fields: Mapping[str, msgspec.Raw], name: str | None) -> str:
    value = b"" if name is None or name not in fields else bytes(fields[name])
    if not value.startswith(b'"'):
        return value.decode()
    text = decode_string(value)
    return text if text.isprintable() else "\n".join(map(escape, text.split("\n")))


def _line(values: Iterable[str]) -> bytes:
    return (",".join(map(_quoted, values)) + "\n").encode("utf-8", "backslashreplace")


def _quoted(text: str) -> str:
    is_plain = "," not in text and '"' not in text and "\n" not in text
    return text if is_plain else '"' + text.replace('"', '""') + '"'
