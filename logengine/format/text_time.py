"""Finds the time at the start of a line of text, in the forms that programs write. No I/O.

2026-11-23T20:00:00.123+01:00 …        RFC 3339, also with a space, a comma, no offset
<13>Nov 23 20:00:00 host …             syslog, without a year and a zone
<165>1 2026-11-23T20:00:00Z host …     syslog of RFC 5424
1.2.3.4 - - [23/Nov/2026:20:00:00 +0000] "GET …      nginx, Apache
2026/11/23 20:00:00 [error] …          nginx's error log
"""

import re
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache

from logengine.format.timestamp import format_moment, zone_of

# Only this many characters at the start of a line are searched.
_SEARCHED_CHARACTERS = 512
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAME = f"(?:{'|'.join(_MONTHS)})"
_CLOCK = r"(\d\d:\d\d):(\d\d)(?:[.,](\d{1,9}))?"
_OFFSET = r"(?:\s?(Z(?!\w)|[+-]\d\d:?\d\d(?!\d)))?"
_SECOND = slice(17, 19)  # of a timestamp
_LAST_SECOND = "59"
_PRIORITY = r"(?:<\d{1,3}>(?:\d )?)?"

_ISO = re.compile(rf"{_PRIORITY}\[?(\d{{4}}[-/]\d\d[-/]\d\d)[T ]{_CLOCK}{_OFFSET}", re.IGNORECASE)
_SYSLOG = re.compile(rf"{_PRIORITY}({_NAME}) +(\d{{1,2}}) {_CLOCK}(?!\d)", re.IGNORECASE)
_ACCESS = re.compile(rf"[^\[]*\[(\d\d/{_NAME}/\d{{4}}):{_CLOCK}{_OFFSET}\]", re.IGNORECASE)
_WITH_OFFSET = tuple(
    re.compile(rf"{date}{_CLOCK} ?(Z|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE)
    for date in (r"(\d{4}-\d\d-\d\d)[T ]", rf"(\d\d/{_NAME}/\d{{4}}):")
)
# A time without a year may be up to this far ahead of `now`: some clock was fast.
_AHEAD_MAX = timedelta(days=1)
# Lines next to each other often have the same minute.
_MINUTES_CACHED = 1024


def leading_time(line: str, now: datetime) -> str | None:
    """Returns the time at the start of `line` as a timestamp in UTC; None if there is none.

    `now` is an aware time. A line without a zone gets that of `now`. A line without a year gets
    the latest year in which its time is at most one day after `now`.
    """
    start = line[:_SEARCHED_CHARACTERS]
    if found := _ISO.match(start):
        date, clock, second, fraction, offset = found.groups()
        return _timestamp(date, clock, second, fraction, offset, now)
    if found := _SYSLOG.match(start):
        name, day, clock, second, fraction = found.groups()
        date = _date_of_minute(name, day, clock, now)
        if date is not None:
            return _timestamp(date, clock, second, fraction, None, now)
        return _of_last_year_possible(name, day, clock, second, fraction, now)
    if found := _ACCESS.match(start):
        date, clock, second, fraction, offset = found.groups()
        return _timestamp(date, clock, second, fraction, offset, now)
    return None


def time_with_offset(text: str) -> str | None:
    """Returns the timestamp of a text that is a time with an offset, and nothing else.

    That is RFC 3339, also with a space or a comma, or the form of access logs. Returns None for
    any other text: what a time without an offset means depends on who reads it.
    """
    for pattern in _WITH_OFFSET:
        if found := pattern.fullmatch(text):
            date, clock, second, fraction, offset = found.groups()
            return _timestamp(date, clock, second, fraction, offset, None)
    return None


def _of_last_year_possible(
    name: str, day: str, clock: str, second: str, fraction: str | None, now: datetime
) -> str | None:
    _, last_year, last_timestamp = _around(now)
    # The last 29th of February may be up to eight years ago.
    for year in range(last_year, last_year - 10, -1):
        timestamp = _timestamp(_date(name, day, year), clock, second, fraction, None, now)
        if timestamp is not None and timestamp <= last_timestamp:
            return timestamp
    return None


@lru_cache(_MINUTES_CACHED)
def _date_of_minute(name: str, day: str, clock: str, now: datetime) -> str | None:
    """Returns the date of a minute without a year; None if not all of it has the same."""
    first = _of_last_year_possible(name, day, clock, "00", None, now)
    last = _of_last_year_possible(name, day, clock, "59", "999999", now)
    if first is None or last is None or first[: _SECOND.start] != last[: _SECOND.start]:
        return None
    _, last_year, _ = _around(now)
    dates = (_date(name, day, year) for year in range(last_year, last_year - 10, -1))
    return next(
        (each for each in dates if _timestamp(each, clock, "00", None, None, now) == first), None
    )


@lru_cache(maxsize=8)
def _around(now: datetime) -> tuple[timedelta | None, int, str]:
    """Returns the offset of the zone, and the year and timestamp that a time may have at most."""
    latest = now + _AHEAD_MAX
    return now.utcoffset(), latest.year, format_moment(latest)


def _date(name: str, day: str, year: int) -> str:
    return f"{int(day):02d}/{name}/{year:04d}"


def _timestamp(
    date: str,
    clock: str,
    second: str,
    fraction: str | None,
    offset: str | None,
    now: datetime | None,
) -> str | None:
    """Returns the timestamp; None if there is no such time. `now` is for one without an offset."""
    zone = None if now is None else now.tzinfo
    try:
        if offset is None:
            assert now is not None
            # The system's zone is one object, whatever its offset is at the moment.
            start = _start_of_minute(date, clock, None, zone, _around(now)[0])
        else:
            start = _start_of_minute(date, clock, offset, None, None)
        # Digits of other scripts sort after these. A leap second becomes second 59.
        seconds = second if second <= _LAST_SECOND else f"{min(int(second), 59):02d}"
        if fraction is None:
            microseconds = "000000"
        else:
            microseconds = fraction[:6].ljust(6, "0")
            if not microseconds.isascii():
                microseconds = f"{int(microseconds):06d}"
        if start is not None:
            return f"{start}{seconds}.{microseconds}Z"
        moment = _moment(date, clock, offset, zone)
        return format_moment(moment.replace(second=int(seconds), microsecond=int(microseconds)))
    except (ValueError, OverflowError):
        return None


@lru_cache(_MINUTES_CACHED)
def _start_of_minute(
    date: str,
    clock: str,
    offset: str | None,
    zone: tzinfo | None,
    _offset_now: timedelta | None,
) -> str | None:
    """Returns what the timestamps of a minute begin with; None if they do not begin alike.

    Raises `ValueError` and `OverflowError` if there is no such minute.
    """
    timestamp = format_moment(_moment(date, clock, offset, zone))
    # Offsets from the time before time zones have seconds.
    return timestamp[: _SECOND.start] if timestamp[_SECOND] == "00" else None


def _moment(date: str, clock: str, offset: str | None, zone: tzinfo | None) -> datetime:
    """Returns the minute of a date such as `2026-11-28` or `28/Nov/2026`."""
    if date[2] == "/":
        year, month, day = int(date[7:]), _MONTHS.index(date[3:6].lower()) + 1, int(date[:2])
    else:
        year, month, day = int(date[:4]), int(date[5:7]), int(date[8:])
    zone = zone if offset is None else zone_of(offset)
    return datetime(year, month, day, int(clock[:2]), int(clock[3:]), tzinfo=zone)
