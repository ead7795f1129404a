"""What a line of a log becomes, written plainly: the definition that the quick code is checked by.

Each line for itself, each form after the other, each time by `datetime`.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from logengine.format.json_object import object_fields
from logengine.format.record import BLANK
from logengine.format.severity import severity_of
from logengine.format.timestamp import format_moment, zone_of
from logengine.protocols.syslog_message import parse_message

# Only this many characters at the start of a line are searched.
_SEARCHED_CHARACTERS = 512
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = f"({'|'.join(_MONTHS)})"
_CLOCK = r"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
_TIME_OFFSET = r"(?:\s?(Z(?!\w)|[+-]\d\d:?\d\d(?!\d)))?"
_PRIORITY = r"(?:<\d{1,3}>(?:\d )?)?"

_ISO = re.compile(
    rf"{_PRIORITY}\[?(\d{{4}})[-/](\d\d)[-/](\d\d)[T ]{_CLOCK}{_TIME_OFFSET}", re.IGNORECASE
)
_SYSLOG_TIME = re.compile(rf"{_PRIORITY}{_MONTH} +(\d{{1,2}}) {_CLOCK}(?!\d)", re.IGNORECASE)
_ACCESS_TIME = re.compile(
    rf"[^\[]*\[(\d\d)/{_MONTH}/(\d{{4}}):{_CLOCK}{_TIME_OFFSET}\]", re.IGNORECASE
)
# A time without a year may be up to this far ahead of `now`: some clock was fast.
_AHEAD_MAX = timedelta(days=1)


def leading_time(line: str, now: datetime) -> str | None:
    """Returns the time at the start of `line` as a timestamp in UTC; None if there is none.

    `now` is an aware time. A line without a zone gets that of `now`. A line without a year gets
    the latest year in which its time is at most one day after `now`.
    """
    start = line[:_SEARCHED_CHARACTERS]
    if found := _ISO.match(start):
        year, month, day, *rest = found.groups()
        return _timestamp(int(year), int(month), int(day), rest, now.tzinfo)
    if found := _SYSLOG_TIME.match(start):
        name, day, *rest = found.groups()
        return _of_last_year_possible(_month(name), int(day), [*rest, None], now)
    if found := _ACCESS_TIME.match(start):
        day, name, year, *rest = found.groups()
        return _timestamp(int(year), _month(name), int(day), rest, now.tzinfo)
    return None


def _month(name: str) -> int:
    return _MONTHS.index(name.lower()) + 1


def _of_last_year_possible(
    month: int, day: int, rest: list[str | None], now: datetime
) -> str | None:
    latest = now + _AHEAD_MAX
    last_timestamp = format_moment(latest)
    # The last 29th of February may be up to eight years ago.
    for year in range(latest.year, latest.year - 10, -1):
        timestamp = _timestamp(year, month, day, rest, now.tzinfo)
        if timestamp is not None and timestamp <= last_timestamp:
            return timestamp
    return None


def _timestamp(
    year: int, month: int, day: int, rest: list[str | None], zone: tzinfo | None
) -> str | None:
    hour, minute, second, fraction, offset = rest
    try:
        if offset is not None:
            zone = zone_of(offset)
        moment = datetime(
            year,
            month,
            day,
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),  # a leap second becomes second 59
            int((fraction or "0").ljust(6, "0")[:6]),
            tzinfo=zone,
        )
        return format_moment(moment)
    except (ValueError, OverflowError):
        return None


_ACCESS = re.compile(
    r'(?P<client>\S{1,255}) \S+ (?P<user>\S{1,255}) \[[^\]]{20,40}\] "(?P<request>(?:[^"\\]|\\.)*)"'
    r" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)"
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?(?: .*)?',
    re.ASCII,
)
_REQUEST = re.compile(r"(?P<method>[A-Z]{1,20}) (?P<path>\S+)(?: (?P<protocol>[A-Z]+/[\d.]+))?")
_PAIR = re.compile(
    r'(?P<key>[A-Za-z_][\w.@/-]{0,127})=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"=]*))(?:\s+|\Z)',
    re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
# What is printed again as it was read, so that nothing is lost by storing a number.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{0,14}[1-9])?", re.ASCII)
_PAIRS_MIN = 2
Fields = dict[str, Any]


def fields_of_line(line: str, now: datetime) -> Fields | None:
    """Returns the fields of a line of a form that is known; None for another.

    Only the fields of a line of syslog have its time. `now` is as in `leading_time`.
    """
    return _of_syslog(line, now) or _of_access_log(line) or _of_logfmt(line)


def _of_syslog(line: str, now: datetime) -> Fields | None:
    found = parse_message(line, lambda text: leading_time(text, now))
    # Without these, it is rather a line that begins with a time.
    if found.time is None or found.app is None or (found.host, found.priority) == (None, None):
        return None
    return {"time": found.time} | found.header_fields() | {"message": found.message}


def _of_access_log(line: str) -> Fields | None:
    found = _ACCESS.fullmatch(line)
    if found is None:
        return None
    fields: Fields = {"message": line}
    for key in ("client", "user", "referer", "agent"):
        if found[key] not in (None, "-"):
            fields[key] = found[key]
    if request := _REQUEST.fullmatch(found["request"]):
        fields |= {key: value for key, value in request.groupdict().items() if value is not None}
    fields["status"] = int(found["status"])
    if found["bytes"] != "-":
        fields["bytes"] = int(found["bytes"])
    return fields


def _of_logfmt(line: str) -> Fields | None:
    text = line.strip()
    fields: Fields = {}
    place = 0
    while place < len(text):
        found = _PAIR.match(text, place)
        if found is None or found["key"] in fields:
            return None
        quoted = found["quoted"]
        fields[found["key"]] = plain_value(found["bare"]) if quoted is None else _unescaped(quoted)
        place = found.end()
    if len(fields) < _PAIRS_MIN:
        return None
    if "msg" in fields and "message" not in fields:
        fields = {"message" if key == "msg" else key: value for key, value in fields.items()}
    return fields


def plain_value(bare: str) -> str | int | float | bool:
    """Returns the number or boolean that `bare` is written as, if it prints again as `bare`.

    Everything else stays a string.
    """
    if bare in ("true", "false"):
        return bare == "true"
    if _NUMBER.fullmatch(bare) is None:
        return bare
    number = float(bare) if "." in bare else int(bare)
    return number if str(number) == bare else bare


def _unescaped(quoted: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), quoted)


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


def text_line(line: bytes, now: datetime) -> bytes:
    r"""Returns the record of a line of text. Each byte that is not UTF-8 becomes like `\xff`."""
    line, nul_bytes = _stripped(line)
    text = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
    record = {"message": text}
    time = leading_time(text, now)
    return _with_nul_bytes(
        msgspec.json.encode(record if time is None else {"time": time} | record), nul_bytes
    )


def ndjson_line(line: bytes, now: datetime) -> bytes:
    """Returns the line, with `time` in front if a field is a time; as text if not an object."""
    rest, nul_bytes = _stripped(line)
    stripped = rest.strip(BLANK)
    fields = object_fields(stripped)
    if fields is None:
        return text_line(line, now)
    if "level" not in fields and (level := _level_of(fields)) is not None:
        stripped = b'{"level":"%s",%s' % (level.encode(), stripped[1:])
    time = None if "time" in fields else _time_of(fields, now)
    if time is not None:
        stripped = b'{"time":"%s",%s' % (time.encode(), stripped[1:])
    return _with_nul_bytes(stripped, nul_bytes)


def recognized_line(line: bytes, now: datetime) -> bytes:
    """Like `ndjson_line`, but the fields of lines in a form of `line_fields` are recognized."""
    rest, nul_bytes = _stripped(line)
    if not rest.lstrip(BLANK).startswith(b"{"):
        text = rest.rstrip(b"\r").decode("utf-8", "backslashreplace")
        if (fields := fields_of_line(text, now)) is not None:
            if "time" not in fields:
                time = leading_time(text, now)
                if time is None:
                    time = _time_of({key: _raw(fields[key]) for key in fields}, now)
                if time is not None:
                    fields = {"time": time} | fields
            return _with_nul_bytes(msgspec.json.encode(fields), nul_bytes)
    return ndjson_line(line, now)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _stripped(line: bytes) -> tuple[bytes, int]:
    """Returns the line without leading NULs and byte order mark, and the number of NULs.

    After a power cut, a file may contain NULs in place of what a program had appended.
    """
    if not line.startswith((b"\0", _BYTE_ORDER_MARK)):
        return line, 0
    rest = line.lstrip(b"\0")
    return rest.removeprefix(_BYTE_ORDER_MARK), len(line) - len(rest)


def _with_nul_bytes(record: bytes, count: int) -> bytes:
    if not count:
        return record
    inside = record[1:].lstrip()
    return b'{"_nul_bytes":%d%s%s' % (count, b"" if inside == b"}" else b",", inside)


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


PLAIN_LINES = {"text": text_line, "ndjson": ndjson_line, "auto": recognized_line}
