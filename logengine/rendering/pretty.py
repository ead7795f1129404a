"""Records for people: a row with time, level, stream and program, message, and then the fields.

    2026-11-23 20:00:00.123 ERROR shop web[812]: payment failed  order=7 http.status=500
        exception:
            Traceback (most recent call last):

Only a record begins a line: later lines of its text are indented, and everything else that a
terminal would act on is escaped. The names and values of most records are harmless as they are,
which is found out for many at a time; the others are escaped one by one. No I/O.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar
from zlib import crc32

from msgspec import Raw, Struct

from logengine.format.block import Rows
from logengine.format.segment import timestamp_of
from logengine.printable import columns, escape
from logengine.rendering.clock import Clock
from logengine.rendering.fields import (
    ALL_FIELDS,
    FLATTENED_LEVELS_MAX,
    UNDECODABLE,
    UNSHOWN_NAMES,
    FieldChoice,
    Fields,
    decode,
    decode_exactly,
    decode_line,
    message_name,
    message_of,
    name_of,
    quoted_where_needed,
    text_of,
)
from logengine.rendering.levels import LEVEL_CHARACTERS, level_field, rank_of, shown
from logengine.rendering.styled import (
    BLUE,
    BOLD,
    COLUMNS_MIN,
    CYAN,
    GREEN,
    GREY,
    MAGENTA,
    PLAIN,
    YELLOW,
    highlight,
    plain,
    wrap,
)

# Streams are told apart by one of these each.
_STREAM_COLOURS = (CYAN, GREEN, MAGENTA, BLUE, YELLOW)
_INDENTATION = "    "
# Senders choose names and values; what is remembered of them is dropped after so many.
_REMEMBERED_MAX = 4096
_REMEMBERED_CHARACTERS_MAX = 256
_NO_LEVEL = " " * LEVEL_CHARACTERS
_DEL = b"\x7f"

Key = TypeVar("Key")


class Look(Struct, frozen=True, kw_only=True):
    """How rows look.

    `columns`: the width of the terminal, at which rows are wrapped; None for any.
    `highlighted`: what is shown reversed wherever it occurs.
    `is_short`: without the stream, in one line each, with fields only if there is no message.
    """

    clock: Clock
    colours: bool = False
    columns: int | None = None
    fields: FieldChoice = ALL_FIELDS
    highlighted: re.Pattern[str] | None = None
    is_short: bool = False


class Pretty:
    """Renders rows for people. See the module; `Look` says how."""

    heading = b""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._columns = None if look.columns is None else max(COLUMNS_MIN, look.columns)
        self._bold = BOLD if look.colours else PLAIN
        self._hidden = tuple(look.fields.hidden)
        self._is_finished = self._columns is None and look.highlighted is None
        self._names: _Remembered[str] = _Remembered(self._name)
        self._levels: _Remembered[tuple[str, Any]] = _Remembered(self._level)
        self._places: _Remembered[tuple[str, Any, Any]] = _Remembered(self._place)

    def render(self, rows: Rows) -> bytes:
        """See `Rendering`."""
        is_exact = self._look.is_short or bool(self._look.fields.only)
        are_plain = not is_exact and _is_plain(rows.body)
        parts: list[str] = []
        for stream, line, fields in zip(rows.streams, rows.lines, decode(rows), strict=False):
            for name in self._hidden:
                fields.pop(name, None)
            row = None
            if are_plain or (not is_exact and _is_plain_line(line)):
                row = self._plain_row(stream, fields)
            parts.append(row or self._exact_row(stream, line))
        parts.append("")
        return "\n".join(parts).encode("utf-8", "backslashreplace")

    def _plain_row(self, stream: str, fields: Fields) -> str | None:
        """Returns the row of a record without any character to escape; None if it is not simple.

        Equals `_exact_row`, and takes a third of its time.
        """
        level = fields.get("level")
        kind = type(level)
        if (kind is str or kind is int) and (cell := self._levels["level", level]):
            del fields["level"]
        else:
            cell = self._level_cell(fields)
        comm, pid = fields.get("_comm"), fields.get("_pid")
        name = message_name(fields)
        message = fields.pop(name) if name else ""
        if type(comm) is not str or type(pid) is not int or type(message) is not str:
            return None
        message = message.rstrip(" ")
        place = self._places[stream, comm, pid]
        begin, end = self._bold if message else PLAIN
        try:
            shown_fields = self._plain_fields(fields)
        except UNDECODABLE:
            return None
        time = self._look.clock(fields["_ts"])
        space = " " if message else ""
        text = f"{time} {cell} {place}{space}{begin}{message}{end}{space}{shown_fields}".rstrip(" ")
        return text if self._is_finished else self._finished(text)

    def _plain_fields(
        self, fields: Fields, inside: str = "", levels: int = FLATTENED_LEVELS_MAX
    ) -> str:
        names = self._names
        parts = []
        for name, value in fields.items():
            prefix = names[inside + name]
            if not prefix:
                continue
            kind = type(value)
            if kind is str:
                parts.append(
                    f'{prefix}"{value}"' if " " in value or not value else f"{prefix}{value}"
                )
            elif kind is int:
                parts.append(f"{prefix}{value}")
            elif kind is Raw:
                parts.append(f"{prefix}{str(value, 'ascii')}")
            elif kind is dict and value and levels:
                parts.append(self._plain_fields(value, f"{inside}{name}.", levels - 1))
            else:
                parts.append(f"{prefix}{text_of(value)}")
        return "".join(parts)

    def _exact_row(self, stream: str, line: bytes) -> str:
        """Returns the row of any record, with the lines below it."""
        try:
            return self._row(stream, line, decode_line(line))
        except UNDECODABLE:
            return self._row(stream, line, decode_exactly(line))

    def _row(self, stream: str, line: bytes, fields: Fields) -> str:
        for name in self._hidden:
            fields.pop(name, None)
        look = self._look
        parts = [look.clock(escape(timestamp_of(line))), self._level_cell(fields)]
        below: list[str] = []
        if look.is_short:
            message = message_of(fields)
            parts.append(self._bold(escape(message).rstrip(" ")))
            shows_fields = not message or bool(look.fields.only)
        else:
            shows_fields = True
            comm, pid = (text_of(fields.get(name, "")) for name in ("_comm", "_pid"))
            first, *more = message_of(fields).rstrip("\n").split("\n")
            parts += [self._places[stream, comm, pid], self._bold(escape(first).rstrip(" "))]
            below += map(_indented, more)
        shown_fields = []
        for path, value in look.fields.chosen(fields) if shows_fields else ():
            prefix = self._names[path]
            if not prefix:
                continue
            if type(value) is str and "\n" in value and not look.is_short:
                below.append(f"{_INDENTATION}{prefix[1:-1]}:")
                below += [_INDENTATION + _indented(each) for each in value.rstrip("\n").split("\n")]
            else:
                shown_fields.append(f"{prefix}{quoted_where_needed(value)}")
        row = " ".join([part for part in parts if part])
        if parts[-1] and shown_fields:
            row += " "
        row = (row + "".join(shown_fields)).rstrip(" ")
        return "\n".join(map(self._finished, [row, *below]))

    def _finished(self, text: str) -> str:
        """Returns a line highlighted and wrapped."""
        if self._look.highlighted is not None:
            text = highlight(text, self._look.highlighted)
        if self._columns is not None and columns(plain(text)) > self._columns:
            own = len(text) - len(text.lstrip(" "))
            text = wrap(text, self._columns, own + len(_INDENTATION))
        return text

    def _level_cell(self, fields: Fields) -> str:
        """Removes the level from `fields` and returns how it is shown; spaces if there is none."""
        name = level_field(fields)
        if name is None:
            return _NO_LEVEL
        value = fields.pop(name)
        return self._levels[name, value]

    def _level(self, key: tuple[str, Any]) -> str:
        rank = rank_of(*key)
        if rank is None:
            return ""
        text, colour = shown(rank)
        return (colour if self._look.colours else PLAIN)(text.ljust(LEVEL_CHARACTERS))

    def _place(self, key: tuple[str, Any, Any]) -> str:
        stream, comm, pid = key
        if not self._look.colours:
            colour = grey = PLAIN
        else:
            colour, grey = _STREAM_COLOURS[crc32(stream.encode()) % len(_STREAM_COLOURS)], GREY
        process = escape(f"{comm}[{pid}]" if pid != "" else str(comm))
        return f"{colour(escape(stream))}{grey(f' {process}:' if process else ':')}"

    def _name(self, path: str) -> str:
        fields = self._look.fields
        if not fields.shows(path) or (path in UNSHOWN_NAMES and path not in fields.only):
            return ""
        colour = CYAN if self._look.colours else PLAIN
        return f" {colour(f'{name_of(path)}')}="


class _Remembered(dict[Key, str]):
    """Texts by what they are made of, each made once. Forgets all when there are too many."""

    def __init__(self, make: Callable[[Key], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> str:
        text = self._make(key)
        if len(text) <= _REMEMBERED_CHARACTERS_MAX:
            if len(self) >= _REMEMBERED_MAX:
                self.clear()
            self[key] = text
        return text


def _is_plain(lines: bytes) -> bool:
    """Returns whether nothing in the lines needs to be escaped. JSON has no control characters."""
    return lines.isascii() and b"\\" not in lines and _DEL not in lines


def _is_plain_line(line: bytes) -> bool:
    """Returns whether nothing in the line needs to be escaped, and it has no space but ` `."""
    if b"\\" in line:
        return False
    if line.isascii():
        return _DEL not in line
    return line.decode("utf-8", "replace").isprintable()


def _indented(text: str) -> str:
    """Returns a further line of a text, indented, so that it does not look like a record."""
    return _INDENTATION + escape(text.replace("\t", _INDENTATION))
