"""Converts exported records to CSV: RFC 4180, except that lines end with a newline alone.

Senders' fields have no schema, so only these have columns: the envelope, what most records have,
and `record` with the whole JSON.
"""

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from logengine.format.json_object import decode_string, stored_fields
from logengine.format.record import MESSAGE_FIELDS
from logengine.printable import escape

# Each column with the keys that it may be taken from, in order.
_COLUMNS = {
    **{
        name: (name,)
        for name in (
            *("_stream", "_seq", "_ts", "_pid", "_uid", "_gid", "_comm", "_unit", "_user_unit"),
            *("time", "level"),
        )
    },
    "message": MESSAGE_FIELDS,
}
_RECORD = "record"


def csv_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a line with the names of the columns, then the records of `pieces`.

    Each piece is NDJSON and ends with a newline. A string is written without its quotes, and with
    control characters other than newlines escaped; other values as JSON; nothing for a key that
    the record does not have.
    """
    text = io.StringIO(newline="")
    write_row = csv.writer(text, lineterminator="\n").writerow
    write_row([*_COLUMNS, _RECORD])
    yield _taken(text)
    for piece in pieces:
        for line in piece.removesuffix(b"\n").split(b"\n"):
            fields = stored_fields(line)
            assert fields is not None
            write_row([*(_value(fields, keys) for keys in _COLUMNS.values()), line.decode()])
        yield _taken(text)


def _value(fields: dict[str, msgspec.Raw], keys: tuple[str, ...]) -> str:
    value = next((bytes(fields[key]) for key in keys if key in fields), b"")
    if not value.startswith(b'"'):
        return value.decode()
    return "\n".join(map(escape, decode_string(value).split("\n")))


def _taken(text: io.StringIO) -> bytes:
    taken = text.getvalue()
    text.seek(0)
    text.truncate()
    return taken.encode("utf-8", "backslashreplace")
