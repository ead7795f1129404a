r"""Records in a form of the user's own: `{time} {level:<5} {http.status:>3} {message}\n`. No I/O.

In braces is the name of a field, or one of `NAMES`, which are made for people; with a dot in front,
it is always a field. A colon, `<`, `>` or `^` and a number fill it with spaces to a width. `{{` and
`}}` are braces, `\t` and `\n` a tab and a newline. All that comes from a record is escaped.
"""

import re
from collections.abc import Callable, Mapping

from logengine.format.block import Rows
from logengine.format.segment import timestamp_of
from logengine.printable import columns, escape
from logengine.rendering.clock import Clock
from logengine.rendering.fields import (
    ALL_FIELDS,
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
from logengine.rendering.levels import level_field, rank_of, shown
from logengine.rendering.logfmt import pairs

_PART = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}:]+)(?::(?P<side>[<>^]?)(?P<width>\d{1,4}))?\}|[{}]")
_WIDTH_MAX = 1000
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\"}
_ESCAPE = re.compile(r"\\[tn\\]")

# The time as it is shown, and the fields of a record with its place.
Part = Callable[[str, Fields], str]


class Template:
    """Renders rows by a template. Raises `ValueError`, which says what is wrong with it."""

    heading = b""

    def __init__(self, text: str, clock: Clock, choice: FieldChoice = ALL_FIELDS) -> None:
        self._clock = clock
        self._choice = choice
        self._parts: list[str | Part] = []
        place = 0
        for found in _PART.finditer(text):
            self._parts.append(_unescaped(text[place : found.start()]))
            self._parts.append(self._part(found, text))
            place = found.end()
        self._parts.append(_unescaped(text[place:]))

    def render(self, rows: Rows) -> bytes:
        """See `Rendering`."""
        parts: list[str] = []
        for stream, seq, line in zip(rows.streams, rows.seqs, rows.lines, strict=False):
            time = escape(self._clock(timestamp_of(line)))
            try:
                parts.append(self._text(time, with_place(stream, seq, decode_line(line))))
            except UNDECODABLE:
                parts.append(self._text(time, with_place(stream, seq, decode_exactly(line))))
        parts.append("")
        return "\n".join(parts).encode("utf-8", "backslashreplace")

    def _text(self, time: str, fields: Fields) -> str:
        return "".join(
            [part if isinstance(part, str) else part(time, fields) for part in self._parts]
        )

    def _part(self, found: re.Match[str], text: str) -> str | Part:
        name, side = found["name"], found["side"] or "<"
        if found[0] in ("{{", "}}"):
            return found[0][0]
        if name is None:
            raise ValueError(
                f"{text!r} has a brace at character {found.start() + 1} that belongs to no field; "
                "expected {NAME} or {NAME:>WIDTH}, and {{ for a brace"
            )
        width = int(found["width"] or 0)
        if width > _WIDTH_MAX:
            raise ValueError(f"{found[0]!r} has a width of more than {_WIDTH_MAX} characters")
        value = _NAMED.get(name)
        path = name.removeprefix(".")

        def filled(time: str, fields: Fields) -> str:
            if value is None:
                shown_text = escape(self._field(fields, path))
            else:
                shown_text = escape(value(self._choice, time, fields))
            missing = max(0, width - columns(shown_text))
            before = missing if side == ">" else missing // 2 if side == "^" else 0
            return " " * before + shown_text + " " * (missing - before)

        return filled

    def _field(self, fields: Fields, path: str) -> str:
        value = field(fields, path) if self._choice.shows(path) else None
        return "" if value is None else text_of(value)


def _level(_choice: FieldChoice, _time: str, fields: Fields) -> str:
    name = level_field(fields)
    if name is None:
        return text_of(fields.get("level", ""))
    rank = rank_of(name, fields[name])
    return "" if rank is None else shown(rank)[0]


def _message(_choice: FieldChoice, _time: str, fields: Fields) -> str:
    return message_of(dict(fields))


def _rest(choice: FieldChoice, _time: str, fields: Fields) -> str:
    rest = dict(rest_of(fields))
    message_of(rest)
    if (name := level_field(rest)) is not None:
        del rest[name]
    return pairs(each for each in flattened(rest.items()) if choice.shows(each[0]))


_NAMED: Mapping[str, Callable[[FieldChoice, str, Fields], str]] = {
    "time": lambda _, time, __: time,
    "level": _level,
    "message": _message,
    "stream": lambda _, __, fields: str(fields["_stream"]),
    "seq": lambda _, __, fields: str(fields["_seq"]),
    "cursor": lambda _, __, fields: f"{fields['_stream']}:{fields['_seq']}",
    "program": lambda _, __, fields: text_of(fields.get("_comm", "")),
    "pid": lambda _, __, fields: text_of(fields.get("_pid", "")),
    "fields": _rest,
}
NAMES = tuple(_NAMED)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES[found[0]], text)
