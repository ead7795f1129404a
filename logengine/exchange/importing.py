"""Converts logs of other programs to NDJSON, one line per record, with their time as `time`.

    text      every line that is not blank: {"time":"…","message":"<the line>"}
    ndjson    an object stays as it is, with `time` in front if one of its fields is a time, and
              `level` if it has journald's `PRIORITY`; other lines become text
    journal   journald's export: {"time":"…","level":"info","message":"…","PRIORITY":"6",…}
    auto      journal or ndjson; lines of text in a form of `line_fields` become fields

A byte order mark at the start of a line is removed, and so is a run of NULs; `_nul_bytes` gives
their number.

The same input yields the same number of lines, however it is cut into pieces: resuming depends on
that. Bytes in, bytes out, no files and no clock.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from logengine.exchange.line_fields import fields_of_line, fields_of_syslog
from logengine.format.json_object import object_fields
from logengine.format.record import BLANK, readable_text, split_lines
from logengine.format.severity import severity_of
from logengine.format.text_time import leading_time
from logengine.format.timestamp import format_moment
from logengine.protocols.journal_export import JournalEntry, JournalExportParser
from logengine.protocols.syslog_headers import Headers

FORMATS = ("auto", "text", "ndjson", "journal")

# A longer line is truncated. The daemon refuses it in any case.
_LINE_BYTES_MAX = 64 * 1024 * 1024
_JOURNAL_START = re.compile(rb"(__CURSOR|__REALTIME_TIMESTAMP|__MONOTONIC_TIMESTAMP)=")
# Windows editors put it at the start of a file. In concatenated files it starts a line.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Fields to take the time from if there is no `time`, and how many of their units make a second.
_TIME_KEYS = {
    "_ts": 1,
    "timestamp": 1,
    "@timestamp": 1,
    "ts": 1,
    "__REALTIME_TIMESTAMP": 1_000_000,
}
_PRIORITY_KEY = "PRIORITY"
_encoder = msgspec.json.Encoder()
_Record = dict[str, Any] | msgspec.Raw
_JOURNAL_TIME_KEYS = ("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP")


class Converter(Protocol):
    """Converts an input that arrives in pieces to NDJSON."""

    def receive(self, data: bytes) -> bytes:
        """Returns the lines that `data` completes."""

    def end(self) -> bytes:
        """Returns the rest, at the end of the input."""


def converter(form: str, start: bytes, now: datetime) -> Converter:
    """Returns the converter for an input of format `form` that begins with `start`.

    `now` is an aware time, for lines without a year or a zone.
    """
    if form == "journal" or (form == "auto" and begins_journal(start)):
        return JournalConverter()
    return line_converter(form, now)


def begins_journal(start: bytes) -> bool:
    """Returns whether an input that begins with `start` looks like journald's export format."""
    return _JOURNAL_START.match(start) is not None


def line_converter(form: str, now: datetime) -> "LineConverter":
    """Returns the converter for lines of text, or of NDJSON and text; `now` as in `converter`."""
    return LineConverter(form, now)


class LineConverter:
    """Converts lines of a form of `convert_lines`. Blank lines are dropped."""

    def __init__(self, form: str, now: datetime) -> None:
        self._form = form
        self._now = now
        self._rest = bytearray()

    def receive(self, data: bytes) -> bytes:
        """Returns the lines that `data` completes."""
        stop = data.rfind(b"\n") + 1
        if not stop:
            self._rest += data[: max(0, _LINE_BYTES_MAX - len(self._rest))]
            return b""
        chunk = bytes(self._rest) + data[:stop]
        self._rest[:] = data[stop:]
        return self._converted(chunk)

    def end(self) -> bytes:
        """Returns the last line, if it has no newline."""
        chunk = bytes(self._rest)
        self._rest.clear()
        return self._converted(chunk)

    def _converted(self, chunk: bytes) -> bytes:
        return convert_lines(self._form, split_lines(chunk), self._now)


class JournalConverter:
    """Converts journald's export format. Raises `MalformedInput`."""

    def __init__(self) -> None:
        self._parser = JournalExportParser()

    def receive(self, data: bytes) -> bytes:
        """Returns the entries that `data` completes."""
        return _joined(self._parser.receive(data))

    def end(self) -> bytes:
        """Returns the last entry, if no empty line ended it."""
        return _joined(self._parser.end())


def convert_lines(form: str, lines: Iterable[bytes], now: datetime) -> bytes:
    """Returns the records of lines that are not blank, as lines of JSON, one of each.

    `form` is `text`, `ndjson` or `auto`; `now` as in `converter`. O(bytes).
    """
    if form == "auto":
        headers = Headers()
        return _encoder.encode_lines([_recognized_record(line, now, headers) for line in lines])
    record_of = _RECORDS[form]
    return _encoder.encode_lines([record_of(line, now) for line in lines])


def _text_record(line: bytes, now: datetime) -> _Record:
    r"""Returns the record of a line of text. Each byte that is not UTF-8 becomes like `\xff`."""
    rest, nul_bytes = _stripped(line)
    return _with_nul_bytes(_message_record(readable_text(rest.rstrip(b"\r")), now), nul_bytes)


def _message_record(text: str, now: datetime) -> _Record:
    time = leading_time(text, now)
    return {"message": text} if time is None else {"time": time, "message": text}


def _ndjson_record(line: bytes, now: datetime) -> _Record:
    """Returns the line, with `time` in front if a field is a time; as text if not an object."""
    rest, nul_bytes = _stripped(line)
    stripped = rest.strip(BLANK)
    fields = object_fields(stripped)
    if fields is None:
        return _text_record(line, now)
    if "level" not in fields and (level := _level_of(fields)) is not None:
        stripped = b'{"level":"%s",%s' % (level.encode(), stripped[1:])
    time = None if "time" in fields else _time_of(fields, now)
    if time is not None:
        stripped = b'{"time":"%s",%s' % (time.encode(), stripped[1:])
    return _with_nul_bytes(msgspec.Raw(stripped), nul_bytes)


def _recognized_record(line: bytes, now: datetime, headers: Headers) -> _Record:
    """Like `_ndjson_record`, but the fields of lines in a form of `line_fields` are recognized.

    `headers` are those of lines before it.
    """
    rest, nul_bytes = _stripped(line)
    if rest.lstrip(BLANK).startswith(b"{"):
        return _ndjson_record(line, now)
    rest = rest.rstrip(b"\r")
    beginning, after = headers.find(rest)
    if beginning is not None:
        whole = beginning + _encoder.encode(readable_text(after)) + b"}"
        return _with_nul_bytes(msgspec.Raw(whole), nul_bytes)
    text = readable_text(rest)
    fields = fields_of_syslog(text, now)
    if fields is not None:
        headers.remember(rest, fields)
    else:
        fields = fields_of_line(text)
    if fields is None:
        return _with_nul_bytes(_message_record(text, now), nul_bytes)
    if "time" not in fields:
        time = leading_time(text, now)
        if time is None:
            said = {key: _raw(fields[key]) for key in _TIME_KEYS if key in fields}
            time = _time_of(said, now)
        if time is not None:
            fields = {"time": time} | fields
    return _with_nul_bytes(fields, nul_bytes)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


_RECORDS = {"text": _text_record, "ndjson": _ndjson_record}


def _stripped(line: bytes) -> tuple[bytes, int]:
    """Returns the line without leading NULs and byte order mark, and the number of NULs.

    After a power cut, a file may contain NULs in place of what a program had appended.
    """
    if not line.startswith((b"\0", _BYTE_ORDER_MARK)):
        return line, 0
    rest = line.lstrip(b"\0")
    return rest.removeprefix(_BYTE_ORDER_MARK), len(line) - len(rest)


def _with_nul_bytes(record: _Record, count: int) -> _Record:
    if not count:
        return record
    inside = msgspec.json.encode(record)[1:].lstrip()
    comma = b"" if inside == b"}" else b","
    return msgspec.Raw(b'{"_nul_bytes":%d%s%s' % (count, comma, inside))


def journal_entry(entry: JournalEntry) -> bytes:
    """Returns a journal entry's record: `MESSAGE` as `message`, other fields under their own name.

    A field that occurs more than once becomes a list. `_left_out` names fields that were too long.
    """
    record: dict[str, Any] = {}
    values: dict[str, list[str]] = {}
    for name, value in entry.fields:
        values.setdefault(name, []).append(value.decode("utf-8", "backslashreplace"))
    for key in _JOURNAL_TIME_KEYS:
        time = _of_number(values.get(key, [""])[0], 1_000_000)
        if time is not None:
            record["time"] = time
            break
    if "level" not in values and (level := severity_of(values.get(_PRIORITY_KEY, [""])[0])):
        record["level"] = level
    for name, texts in values.items():
        key = "message" if name == "MESSAGE" else name
        record[key] = texts[0] if len(texts) == 1 else texts
    if entry.left_out:
        record["_left_out"] = entry.left_out
    return msgspec.json.encode(record)


def _joined(entries: Iterable[JournalEntry]) -> bytes:
    return b"".join(journal_entry(entry) + b"\n" for entry in entries)


def _level_of(fields: dict[str, msgspec.Raw]) -> str | None:
    raw = fields.get(_PRIORITY_KEY)
    return None if raw is None else severity_of(bytes(raw).decode().strip('"'))


def _time_of(fields: dict[str, msgspec.Raw], now: datetime) -> str | None:
    for key, per_second in _TIME_KEYS.items():
        if key not in fields:
            continue
        text = bytes(fields[key]).decode()
        time = None
        if text.startswith('"'):
            text = text.strip('"')  # a time needs no escapes
            time = leading_time(text, now)
        time = time or _of_number(text, per_second)
        if time is not None:
            return time
    return None


def _of_number(text: str, per_second: int) -> str | None:
    """Returns the timestamp of a number of units after the epoch, `per_second` to the second."""
    if not re.fullmatch(r"\d{1,20}(\.\d{1,20})?", text, re.ASCII):
        return None
    try:
        whole, _, fraction = text.partition(".")
        ticks = int(whole + fraction.ljust(6, "0")[:6]) // per_second  # in microseconds
        return format_moment(_EPOCH + timedelta(microseconds=ticks))
    except (OverflowError, ValueError):
        return None
