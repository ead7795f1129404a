r"""Records as comma-separated values (RFC 4180), with a heading. No I/O.

The columns are the chosen fields; without a choice `COLUMNS`, in which `message` is `event`,
`message` or `msg`, and `fields` the rest of the record as logfmt. One record, one line: a newline
in a value is `\n`.
"""

from collections.abc import Iterator

from logengine.format.block import Rows
from logengine.printable import escape
from logengine.rendering.fields import (
    UNDECODABLE,
    FieldChoice,
    Fields,
    decode_exactly,
    decode_line,
    field,
    flattened,
    message_of,
    rest_of,
    text_of,
    with_place,
)
from logengine.rendering.logfmt import pairs

_OF_THE_RECORD = ("_stream", "_seq", "_ts", "_comm", "_pid", "level")
COLUMNS = (*_OF_THE_RECORD, "message", "fields")


class CommaSeparated:
    """Renders rows as comma-separated values."""

    def __init__(self, choice: FieldChoice) -> None:
        self._choice = choice
        self._names = [name for name in choice.only or COLUMNS if choice.shows(name)]

    @property
    def heading(self) -> bytes:
        """The names of the columns."""
        return _line(self._names)

    def render(self, rows: Rows) -> bytes:
        """See `Rendering`."""
        parts: list[bytes] = []
        for stream, seq, line in zip(rows.streams, rows.seqs, rows.lines, strict=False):
            try:
                parts.append(_line(self._values(with_place(stream, seq, decode_line(line)))))
            except UNDECODABLE:
                exact = with_place(stream, seq, decode_exactly(line))
                parts.append(_line(self._values(exact)))
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


def _line(values: "Iterator[str] | list[str]") -> bytes:
    return (",".join(map(_quoted, values)) + "\n").encode("utf-8", "backslashreplace")


def _quoted(text: str) -> str:
    text = escape(text)
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text
