"""Records as JSON with only some of their fields: `{"_stream":"app","_seq":1,"http.status":500}`.

One record, one line. Without a choice of fields, records are printed as they are stored instead,
which is much faster. No I/O.
"""

import msgspec

from logengine.format.block import Rows
from logengine.format.json_object import without_controls
from logengine.rendering.fields import (
    UNDECODABLE,
    FieldChoice,
    Fields,
    decode_exactly,
    decode_line,
    with_place,
)


class JsonFields:
    """Renders the chosen fields as JSON, after `_stream` and `_seq`."""

    heading = b""

    def __init__(self, choice: FieldChoice) -> None:
        self._choice = choice

    def render(self, rows: Rows) -> bytes:
        """See `Rendering`."""
        parts: list[bytes] = []
        for stream, seq, line in zip(rows.streams, rows.seqs, rows.lines, strict=False):
            try:
                parts.append(self._object(with_place(stream, seq, decode_line(line))))
            except UNDECODABLE:
                parts.append(self._object(with_place(stream, seq, decode_exactly(line))))
        parts.append(b"")
        return b"\n".join(parts)

    def _object(self, fields: Fields) -> bytes:
        place = {name: fields[name] for name in ("_stream", "_seq")}
        chosen = place | dict(self._choice.chosen(fields, flat=False))
        try:
            return without_controls(msgspec.json.encode(chosen))
        except UnicodeEncodeError:  # half of a surrogate pair, which only older versions stored
            readable = {
                _encodable(name): _encodable(value) if isinstance(value, str) else value
                for name, value in chosen.items()
            }
            return without_controls(msgspec.json.encode(readable))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
