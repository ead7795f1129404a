"""Records as a page gets them: what is shown of each, as plain text. No I/O.

The page puts all of it into text nodes. It is escaped nevertheless, as for a terminal: marks that
change the direction of writing would make a row read as something else.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from logengine.filtering.levels import LEVEL_NAMES
from logengine.format.block import Record
from logengine.printable import escape
from logengine.reading import Problem
from logengine.rendering.fields import (
    UNDECODABLE,
    Fields,
    decode_exactly,
    decode_line,
    flattened,
    message_of,
    quoted_where_needed,
    rest_of,
    text_of,
)
from logengine.rendering.levels import level_field, rank_of

# Of a row; the record itself is asked for alone.
_MESSAGE_CHARACTERS_MAX = 4000
_VALUE_CHARACTERS_MAX = 300
_NAME_CHARACTERS_MAX = 100
_FIELDS_MAX = 60
# Of a record.
_RECORD_FIELDS_MAX = 5000
_LINE_CHARACTERS_MAX = 4 * 1024 * 1024
_CONDITION_CHARACTERS_MAX = 500
_CUT = "…"
# What an expression understands without quotes.
_PLAIN_PATH = re.compile(r"(?!(?:and|or|not|in|has)$)[A-Za-z_][A-Za-z0-9_.]*", re.IGNORECASE)


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record: `level` is the index of its name in `LEVELS`; `is_cut` if it is not all of it."""

    stream: str
    seq: int
    time: str
    message: str
    level: int = -1
    program: str = ""
    fields: list[tuple[str, str]] = []
    is_cut: bool = False


class GapRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is gone or cannot be read; `first` and `last` are 0 if the numbers are not known."""

    stream: str
    gap: str
    message: str
    first: int = 0
    last: int = 0


class WholeRecord(msgspec.Struct, frozen=True):
    """A record with all that it has.

    `fields` are names, values, and the condition by which to choose records with that value.
    """

    row: Row
    fields: list[tuple[str, str, str]]
    line: str


LEVELS = LEVEL_NAMES


def rows_of(items: Iterable[Record | Problem]) -> list[Row | GapRow]:
    """Returns a row for each record and each problem."""
    return [row_of(each) if isinstance(each, Record) else gap_row_of(each) for each in items]


def gap_row_of(problem: Problem) -> GapRow:
    """Returns the row of a problem."""
    gone = problem.gone
    if gone is None:
        return GapRow(problem.stream, "problem", _text(problem.what))
    return GapRow(problem.stream, gone.reason, _text(problem.what), gone.first, gone.last)


def row_of(record: Record) -> Row:
    """Returns the row of a record."""
    try:
        return _row(record, decode_line(record.line))
    except UNDECODABLE:
        return _row(record, decode_exactly(record.line))


def whole_record(record: Record) -> WholeRecord:
    """Returns all of a record, up to some MiB."""
    try:
        fields = list(_fields(decode_line(record.line)))
    except UNDECODABLE:
        fields = list(_fields(decode_exactly(record.line)))
    line = record.line[: 4 * _LINE_CHARACTERS_MAX].decode("utf-8", "replace")
    return WholeRecord(row_of(record), fields, _cut(escape(line), _LINE_CHARACTERS_MAX))


def _row(record: Record, fields: Fields) -> Row:
    name = level_field(fields)
    rank = None if name is None else rank_of(name, fields.pop(name))
    message = _text(message_of(fields)[: _MESSAGE_CHARACTERS_MAX + 1])
    comm, pid = (escape(text_of(fields.get(each, ""))) for each in ("_comm", "_pid"))
    shown = []
    is_cut = len(message) > _MESSAGE_CHARACTERS_MAX
    rest = flattened(rest_of(fields))
    for path, value in islice(rest, _FIELDS_MAX):
        given = value[: _VALUE_CHARACTERS_MAX + 1] if isinstance(value, str) else value
        text = quoted_where_needed(given)
        is_cut = is_cut or len(text) > _VALUE_CHARACTERS_MAX
        shown.append(
            (
                _cut(escape(path[: _NAME_CHARACTERS_MAX + 1]), _NAME_CHARACTERS_MAX),
                _cut(text, _VALUE_CHARACTERS_MAX),
            )
        )
    return Row(
        stream=record.stream,
        seq=record.seq,
        time=record.timestamp,
        message=_cut(message, _MESSAGE_CHARACTERS_MAX),
        level=-1 if rank is None else rank,
        program=_cut(f"{comm}[{pid}]" if pid else comm, _NAME_CHARACTERS_MAX),
        fields=shown,
        is_cut=is_cut or next(rest, None) is not None,
    )


def _fields(fields: Fields) -> Iterator[tuple[str, str, str]]:
    for path, value in islice(flattened(fields.items()), _RECORD_FIELDS_MAX):
        yield escape(path), _text(text_of(value)), _condition(path, value)


def _condition(path: str, value: Any) -> str:
    """Returns the expression by which to choose records with this value; empty if there is none."""
    if isinstance(value, dict | list):
        return ""
    is_plain = _PLAIN_PATH.fullmatch(path) is not None
    if "." in path and not is_plain:
        return ""  # which of the dots separate names cannot be known
    try:
        name = path if is_plain else msgspec.json.encode(path).decode()
        given = msgspec.json.encode(value).decode() if isinstance(value, str) else text_of(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return ""
    condition = f"{name} == {given}"
    is_long = len(condition) > _CONDITION_CHARACTERS_MAX
    return "" if is_long or escape(condition) != condition else condition


def _text(text: str) -> str:
    """Returns text with its line ends and tabs, and everything else escaped."""
    lines = text.expandtabs(4).rstrip("\n").split("\n")
    return "\n".join(map(escape, lines))


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + _CUT
