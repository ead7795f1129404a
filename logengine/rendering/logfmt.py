"""Records as logfmt: `_stream=app _seq=1 level=info event="it is done" http.status=500`. No I/O.

One record, one line; objects as their fields. A value with a space, a quote, an equals sign or
something to escape is in quotes, with escapes as in Go: https://pkg.go.dev/github.com/kr/logfmt.
"""

import re
from collections.abc import Iterable
from typing import Any

from logengine.format.block import Rows
from logengine.printable import escape
from logengine.rendering.fields import (
    ALL_FIELDS,
    UNDECODABLE,
    FieldChoice,
    decode,
    decode_exactly,
    text_of,
    with_place,
)

_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but the space, quotes, = and backslash
_NOT_IN_NAMES = re.compile(r'[\s="\x00-\x20]')


class Logfmt:
    """Renders rows as logfmt."""

    heading = b""

    def __init__(self, choice: FieldChoice = ALL_FIELDS) -> None:
        self._choice = choice

    def render(self, rows: Rows) -> bytes:
        """See `Rendering`."""
        parts: list[str] = []
        places = zip(rows.streams, rows.seqs, rows.lines, decode(rows), strict=False)
        for stream, seq, line, fields in places:
            try:
                parts.append(pairs(self._choice.chosen(with_place(stream, seq, fields))))
            except UNDECODABLE:
                exact = with_place(stream, seq, decode_exactly(line))
                parts.append(pairs(self._choice.chosen(exact)))
        parts.append("")
        return "\n".join(parts).encode("utf-8", "backslashreplace")


def pairs(fields: Iterable[tuple[str, Any]]) -> str:
    """Returns flat fields as `name=value` pairs. Raises what `UNDECODABLE` names."""
    return " ".join([f"{_name(name)}={_value(text_of(value))}" for name, value in fields])


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", escape(name)) or "_"


def _value(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape(quoted)}"'
