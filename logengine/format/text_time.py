"""Finds the time at the start of a line of text, in the forms that programs write. No I/O.

2026-11-23T20:00:00.123+01:00 …        RFC 3339, also with a space, a comma, no offset
<13>Nov 23 20:00:00 host …             syslog, without a year and a zone
<165>1 2026-11-23T20:00:00Z host …     syslog of RFC 5424
1.2.3.4 - - [23/Nov/2026:20:00:00 +0000] "GET …      nginx, Apache
2026/11/23 20:00:00 [error] …          nginx's error log
"""

import re
from datetime import datetime, timedelta, tzinfo

from logengine.format.timestamp import format_moment, zone_of

# Only this many characters at the start of a line are searched.
_SEARCHED_CHARACTERS = 512
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = f"({'|'.join(_MONTHS)})"
_CLOCK = r"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
_OFFSET = r"(?:\s?(Z(?!\w)|[+-]\d\d:?\d\d(?!\d)))?"
_PRIORITY = r"(?:<\d{1,3}>(?:\d )?)?"

_ISO = re.compile(
    rf"{_PRIORITY}\[?(\d{{4}})[-/](\d\d)[-/](\d\d)[T ]{_CLOCK}{_OFFSET}", re.IGNORECASE
)
_SYSLOG = re.compile(rf"{_PRIORITY}{_MONTH} +(\d{{1,2}}) {_CLOCK}(?!\d)", re.IGNORECASE)
_ACCESS = re.compile(rf"[^\[]*\[(\d\d)/{_MONTH}/(\d{{4}}):{_CLOCK}{_OFFSET}\]", re.IGNORECASE)
_WITH_OFFSET = (
    re.compile(
        r"(\d{4})-(\d\d)-(\d\d)[T ]([01]\d|2[0-3]):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
        r" ?(Z|[+-]\d\d:?\d\d)",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        rf"(\d\d)/{_MONTH}/(\d{{4}}):{_CLOCK} ?(Z|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE
    ),
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
    if found := _SYSLOG.match(start):
        name, day, *rest = found.groups()
        return _of_last_year_possible(_month(name), int(day), [*rest, None], now)
    if found := _ACCESS.match(start):
        day, name, year, *rest = found.groups()
        return _timestamp(int(year), _month(name), int(day), rest, now.tzinfo)
    return None


def time_with_offset(text: str) -> str | None:
    """Returns the timestamp of a text that is a time with an offset, and nothing else.

    That is RFC 3339, also with a space or a comma, or the form of access logs. Returns None for
    any other text: what a time without an offset means depends on who reads it.
    """
    iso, access = _WITH_OFFSET
    if found := iso.fullmatch(text):
        try:  # takes a third of the time of the exact way
            return format_moment(datetime.fromisoformat(text))
        except (ValueError, OverflowError):
            pass  # a leap second, a space before the offset
        year, month, day, *rest = found.groups()
        return _timestamp(int(year), int(month), int(day), rest, None)
    if found := access.fullmatch(text):
        day, name, year, *rest = found.groups()
        return _timestamp(int(year), _month(name), int(day), rest, None)
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
