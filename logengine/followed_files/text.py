r"""Turns the bytes of a followed file into records. Bytes in, lines of JSON out; no I/O.

Nothing is remembered from call to call: a reader gives the bytes from its position on, and moves it
by as many as became records. So it does not matter where a reader stops and another one continues.

A line longer than `max_line` becomes pieces, each but the last with `"partial":true`. With a rule
for the start of a record, further lines belong to the record of the line before, joined by `\n`.

    2026-11-23T20:00:00.1Z stdout P text        CRI: `P` is a part of a line, `F` its last part
    {"log":"text\n","stream":"stdout","time":"2026-11-23T20:00:00.1Z"}       Docker: the last part
                                                                       of a line has the `\n`
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from logengine.exchange.importing import convert_lines
from logengine.followed_files.settings import FileFormat
from logengine.format.json_object import object_fields
from logengine.format.record import BLANK, between_characters, readable_text
from logengine.format.text_time import leading_time

# So many NULs at the start of a line are a hole: the file was truncated while a program had it open
# without O_APPEND. Fewer are what a power cut left, and the record has their number.
_HOLE_BYTES_MIN = 512
_CRI = re.compile(rb"(\S+) (stdout|stderr) ([PF])(?::\S*)? ?")
_IMPORT_FORMS: dict[FileFormat, str] = {"auto": "auto", "lines": "text", "json": "ndjson"}


class _DockerLine(msgspec.Struct, gc=False):
    log: str
    stream: str = ""
    time: str = ""


_docker_decoder = msgspec.json.Decoder(_DockerLine)


class Ending(Enum):
    """What may come after the bytes given."""

    MORE = auto()
    QUIET = auto()  # for a while nothing came: a record that may have further lines is complete
    NOTHING = auto()  # the file is complete: a last line without a newline is one too


class Converted(NamedTuple):
    """`lines` are the records of the first `size` bytes, as complete lines of JSON."""

    lines: bytes
    size: int


class TextRules(msgspec.Struct, frozen=True):
    """How a file becomes records. `start` matches the first line of each; None for every line.

    `max_line` is in bytes, and limits what is joined too. After `wait_s` seconds without a change,
    no further line belongs to a record.
    """

    format: FileFormat
    start: re.Pattern[bytes] | None
    max_line: int
    wait_s: float

    @property
    def joins(self) -> bool:
        """Whether several lines may become one record."""
        return self.start is not None or self.format in ("cri", "docker")

    @property
    def window_bytes(self) -> int:
        """With so many bytes, `convert` always makes some of them records."""
        # A line of Docker is a part of at most 16 KiB, and at worst six times as long in JSON.
        return (8 if self.joins else 1) * self.max_line + 64 * 1024


def convert(
    data: bytes, rules: TextRules, now: datetime, ending: Ending, *, is_cut: bool = False
) -> Converted:
    """Returns the records in `data`, which begins at a line, or within one if `is_cut`.

    `now` is for times without a year. O(bytes).
    """
    if data.startswith(b"\0") and not is_cut:
        text = data.lstrip(b"\0")
        if not text:
            # Perhaps room for lines that are still to be written.
            return Converted(b"", len(data) if ending is Ending.NOTHING else 0)
        hole_bytes = len(data) - len(text)
        if hole_bytes >= min(_HOLE_BYTES_MIN, rules.max_line):
            found = convert(text, rules, now, ending)
            return Converted(found.lines, hole_bytes + found.size if found.size else 0)
    added = b"\n" if ending is Ending.NOTHING and not data.endswith(b"\n") else b""
    lines = (data + added).split(b"\n")
    rest = lines.pop()
    is_full = len(data) >= rules.window_bytes
    if rules.joins:
        found = _joined(lines, rules, now, is_last=ending is not Ending.MORE, is_full=is_full)
    else:
        found = _separate(lines, rules, now, is_cut=is_cut)
    if found.size:
        return Converted(found.lines, found.size - len(added))
    # One byte more, because a carriage return before the newline is not part of the line.
    if len(rest) > rules.max_line + 1 and (is_full or not rules.joins):
        size = between_characters(rest[: rules.max_line + 1], rules.max_line)
        return Converted(_piece(rest[:size]) + b"\n", size)
    return Converted(b"", 0)


def _separate(
    lines: Sequence[bytes], rules: TextRules, now: datetime, *, is_cut: bool
) -> Converted:
    """Returns a record of each line; `is_cut`: the first one is the rest of a line."""
    records: list[bytes] = []
    ordinary: list[bytes] = []
    for number, line in enumerate(lines):
        if len(line) > rules.max_line or (is_cut and not number):
            records.append(_converted(ordinary, rules, now))
            ordinary.clear()
            records += (piece + b"\n" for piece in _pieces(line, rules.max_line))
        elif line.strip(BLANK):
            ordinary.append(line)
    records.append(_converted(ordinary, rules, now))
    return Converted(b"".join(records), sum(map(len, lines)) + len(lines))


def _converted(lines: Sequence[bytes], rules: TextRules, now: datetime) -> bytes:
    return convert_lines(_IMPORT_FORMS[rules.format], lines, now)


def _joined(
    lines: Sequence[bytes], rules: TextRules, now: datetime, *, is_last: bool, is_full: bool
) -> Converted:
    """Returns the records that several lines may have; `is_last`: no further lines belong to them.

    `is_full`: there is no room for more lines.
    """
    joiner = _Joiner(rules, now)
    place = 0
    for line in lines:
        place += len(line) + 1
        joiner.add(line, place)
    if is_last or (is_full and not joiner.complete_bytes):
        joiner.close_all(place)
    return Converted(_as_lines(joiner.complete_records()), joiner.complete_bytes)


def _as_lines(records: Sequence[bytes]) -> bytes:
    return b"".join(record + b"\n" for record in records)


def _pieces(line: bytes, max_line: int) -> Iterator[bytes]:
    """Yields a line that is too long in pieces, the last of which has no mark."""
    line = line.removesuffix(b"\r")
    start = 0
    while len(line) - start > max_line:
        stop = start + between_characters(line[start : start + max_line + 1], max_line)
        yield _piece(line[start:stop])
        start = stop
    yield msgspec.json.encode({"message": readable_text(line[start:])})


def _piece(part: bytes) -> bytes:
    return msgspec.json.encode({"message": readable_text(part), "partial": True})


class _Part(NamedTuple):
    """What one line of a file says: a line of a program, or a part of one."""

    output: str
    time: str | None
    text: bytes
    is_last: bool


@dataclass
class _Group:
    """Lines that become one record."""

    time: str | None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    is_inside_line: bool = False

    def add(self, text: bytes, *, is_last: bool) -> None:
        if self.parts and not self.is_inside_line:
            self.parts.append(b"\n")
        self.parts.append(text)
        self.size += len(text) + 1
        self.is_inside_line = not is_last


class _Joiner:
    """Joins the lines of a file. Complete is what comes before any line of an open group.

    Each output of a container has its own groups. While one is open, what follows from the other
    output waits, so that the position covers neither too much nor too little.
    """

    def __init__(self, rules: TextRules, now: datetime) -> None:
        self._rules = rules
        self._now = now
        self._groups: dict[str, _Group] = {}
        self._records: list[bytes] = []
        self._complete_records = 0
        self.complete_bytes = 0

    def complete_records(self) -> list[bytes]:
        """Returns the records of the first `complete_bytes` bytes."""
        return self._records[: self._complete_records]

    def add(self, line: bytes, stop: int) -> None:
        """Adds a line of the file, which ends at `stop`."""
        start = stop - len(line) - 1
        part = self._part_of(line.removesuffix(b"\r"))
        group = self._groups.get(part.output)
        is_inside = group is not None and group.is_inside_line
        if group is not None and (
            (not is_inside and self._begins_record(part.text))
            or group.size + len(part.text) > self._rules.max_line
        ):
            self._close(part.output, start)
            group = None
        if group is None:
            if not part.text.strip(BLANK) and part.is_last and not is_inside:
                self._note_complete(stop)
                return  # a blank line between records
            group = self._groups[part.output] = _Group(part.time)
        group.add(part.text, is_last=part.is_last)
        if part.is_last and self._rules.start is None:
            self._close(part.output, stop)

    def close_all(self, stop: int) -> None:
        """Makes records of all groups; no further line belongs to them."""
        for output in list(self._groups):
            self._close(output, stop)
        self._note_complete(stop)

    def _close(self, output: str, stop: int) -> None:
        self._records += self._records_of(output, self._groups.pop(output))
        self._note_complete(stop)

    def _note_complete(self, stop: int) -> None:
        if not self._groups:
            self.complete_bytes = stop
            self._complete_records = len(self._records)

    def _begins_record(self, text: bytes) -> bool:
        return self._rules.start is None or self._rules.start.search(text) is not None

    def _part_of(self, line: bytes) -> _Part:
        if self._rules.format == "cri" and (found := _CRI.match(line)):
            return _Part(found[2].decode(), _text(found[1]), line[found.end() :], found[3] == b"F")
        if self._rules.format == "docker":
            try:
                said = _docker_decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                text = said.log.encode("utf-8", "backslashreplace")
                is_last = text.endswith(b"\n")
                return _Part(said.stream, said.time or None, text.removesuffix(b"\n"), is_last)
        return _Part("", None, line, True)

    def _records_of(self, output: str, group: _Group) -> Iterator[bytes]:
        text = b"".join(group.parts)
        if len(text) > self._rules.max_line:
            yield from _pieces(text, self._rules.max_line)
            return
        if self._rules.format not in ("cri", "docker"):
            yield self._record_of_lines(text)
            return
        said: dict[str, object] = {}
        if group.time is not None and (time := leading_time(group.time, self._now)):
            said["time"] = time
        if output:
            said["source"] = output
        yield _with_fields(text, said, is_partial=group.is_inside_line)

    def _record_of_lines(self, text: bytes) -> bytes:
        """Returns the record of one or more lines; what the first one says counts."""
        first, newline, rest = text.partition(b"\n")
        record = _converted([first], self._rules, self._now)[:-1]
        if not newline:
            return record
        fields = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
        whole = readable_text(text)
        if "message" in fields and object_fields(first.strip(BLANK)) is None:
            message = msgspec.json.decode(fields["message"])
            whole = f"{message}\n{readable_text(rest)}"
        else:
            fields = {}
        return msgspec.json.encode(fields | {"message": whole})


def _with_fields(text: bytes, said: dict[str, object], *, is_partial: bool) -> bytes:
    """Returns a record with the fields of an object, or else a message, and what else is known."""
    fields = None if is_partial else object_fields(text.strip(BLANK))
    if fields is None:
        record = said | {"message": readable_text(text)}
        return msgspec.json.encode(record | {"partial": True} if is_partial else record)
    free = {key: value for key, value in said.items() if key not in fields}
    inside = text.strip(BLANK)[1:].replace(b"\n", b" ")
    if not free:
        return b"{" + inside
    comma = b"," if fields else b""
    return msgspec.json.encode(free)[:-1] + comma + inside


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")
