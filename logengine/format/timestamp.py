"""Timestamps of records: RFC 3339, UTC, microseconds, always 27 characters.

Because of the fixed width, the strings sort in the order of their times, and no code that handles
records needs to parse one.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

TIMESTAMP_CHARACTERS = 27

_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_DURATION_PART = re.compile(
    r"(\d{1,19}(?:\.\d{1,9})?)\s*"
    r"(s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?)(?![a-z])\s*",
    re.ASCII,
)
_EPOCH_SECONDS = re.compile(r"@(\d{1,19})(?:\.(\d{1,9}))?", re.ASCII)
_CLOCK_OF_DAY = re.compile(
    r"(?:(today|yesterday|tomorrow)\s+)?(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?",
    re.ASCII,
)
_BOOT = "boot"
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s*([Zz]|[+-]\d\d:?\d\d)?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_ALLOWED = (
    "'14:00', 'yesterday 14:00', '2026-11-20', '2026-11-20 14:00', an RFC 3339 time, '10m' or "
    "'1h30m' ago, 'now', 'today', 'yesterday', 'boot' or '@' and seconds since 1970"
)


def format_timestamp(time_ns: int) -> str:
    """Formats `time_ns`, nanoseconds since the epoch, as 2026-11-23T20:00:00.000123Z."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{_format_second(seconds)}.{rest_ns // 1000:06d}Z"


def format_time(time_s: float) -> str:
    """Formats `time_s`, seconds since the epoch as returned by `time.time`, in the same way."""
    seconds = int(time_s)
    # Twice as fast as formatting six digits, and needed for each record of a logging handler.
    digits = str(int((time_s - seconds) * 1_000_000) + 1_000_000)
    return f"{_format_second(seconds)}.{digits[1:]}Z"


@lru_cache(maxsize=8)
def _format_second(seconds: int) -> str:
    # Not strftime: it imports a module, which fails during interpreter shutdown.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def is_timestamp(text: str) -> bool:
    """Returns whether `text` has exactly the form that `format_timestamp` returns."""
    if not _TIMESTAMP.fullmatch(text):
        return False
    try:
        # Takes a tenth of the time of strptime, and every header has three timestamps or more.
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def parse_timestamp(timestamp: str) -> int:
    """Returns the nanoseconds since the epoch of what `is_timestamp` accepts."""
    # A difference is exact, unlike a float of seconds.
    passed = datetime.fromisoformat(timestamp) - _EPOCH
    return (passed.days * 86400 + passed.seconds) * 1_000_000_000 + passed.microseconds * 1000


def parse_time(
    text: str,
    now: datetime,
    *,
    is_end: bool = False,
    needs_day: bool = False,
    booted: Callable[[], datetime] | None = None,
) -> str:
    """Returns the timestamp that a user's `text` means; `now` is an aware, local time.

    | text | means |
    |---|---|
    | `2026-11-20T14:00:00Z` | an RFC 3339 time; local time if it has no offset |
    | `2026-11-20 14:00`, `2026-11-20` | the same with less; a date alone is its midnight |
    | `14:00`, `14:00:05` | that time today; yesterday if it is still to come, unless `is_end` |
    | `yesterday 14:00` | that time of that day; also `today`, `tomorrow` |
    | `now`, `today`, `yesterday`, `tomorrow` | now; the midnight at which the day begins |
    | `boot` | what `booted` returns: when the machine was started |
    | `10m`, `1h30m`, `-1h30m`, `2 hours ago` | so long before now: s, m, h, d, w |
    | `@1763900000` | seconds since 1970 |

    A local time gets the offset that the zone of `now` has at that time. If it occurred twice,
    because the clocks were set back, it is the first one, or the second with `is_end`, so a range
    has both. If it was skipped, it is as much later. With `needs_day`, a time of the day that is
    still to come is refused: today or yesterday could be meant. Raises `ValueError`, which says
    what is allowed.
    """
    try:
        if booted is not None and text.strip().lower() == _BOOT:
            moment: datetime | None = booted()
        else:
            moment = _moment(text.strip(), now, is_end=is_end, needs_day=needs_day)
    except OverflowError:
        raise ValueError(_outside(text)) from None
    if moment is None:
        raise ValueError(f"{text!r} is not a time; expected {_ALLOWED}")
    try:
        if is_end:
            # Compared as text in UTC: in one zone, times are compared as clocks show them.
            return max(format_moment(moment), format_moment(moment.replace(fold=1)))
        return format_moment(moment)
    except (OverflowError, ValueError):
        raise ValueError(_outside(text)) from None


def _outside(text: str) -> str:
    return f"{text!r} lies outside the years 1 to 9999; expected {_ALLOWED}"


def _moment(text: str, now: datetime, *, is_end: bool, needs_day: bool) -> datetime | None:
    """Returns the aware time that `text` means; None if it means none. Raises `OverflowError`."""
    word = text.lower()
    if clock := _CLOCK_OF_DAY.fullmatch(word):
        return _of_day(clock, text, now, is_end=is_end, needs_day=needs_day)
    if absolute := _RFC3339.fullmatch(text):
        return _absolute(absolute, text, now)
    if seconds := _EPOCH_SECONDS.fullmatch(word):
        fraction_us = int((seconds[2] or "0").ljust(6, "0")[:6])
        return _EPOCH + timedelta(seconds=int(seconds[1]), microseconds=fraction_us)
    return _of_word(word, now)


def _of_word(word: str, now: datetime) -> datetime | None:
    """Returns the time that a word or a duration means; None if it means none."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if word == "now":
        return now.astimezone(UTC)
    if word in _DAYS:
        return midnight + timedelta(days=_DAYS[word])
    age_s = _duration_s(word.removesuffix("ago").strip().removeprefix("-").strip())
    if age_s is None:
        return None
    # In UTC: an hour ago is an hour ago, even if the clocks were set meanwhile.
    return now.astimezone(UTC) - timedelta(seconds=age_s)


def _of_day(
    match: re.Match[str], text: str, now: datetime, *, is_end: bool, needs_day: bool
) -> datetime:
    day, hour, minute, second, fraction = match.groups()
    date = now + timedelta(days=_DAYS[day or "today"])
    try:
        moment = date.replace(
            hour=int(hour),
            minute=int(minute),
            second=int(second or 0),
            microsecond=int((fraction or "0").ljust(6, "0")[:6]),
            fold=0,
        )
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}; expected {_ALLOWED}") from None
    # At 3 a.m., what began at 23:00 began yesterday.
    is_to_come = moment.astimezone(UTC) > now.astimezone(UTC)
    if is_to_come and needs_day and not day:
        raise ValueError(
            f"{text!r} is still to come today; write 'yesterday {text}' or 'today {text}'"
        )
    return moment - timedelta(days=1) if is_to_come and not (day or is_end) else moment


def _duration_s(text: str) -> float | None:
    """Returns the seconds of `1h30m`; None if `text` is no duration."""
    total_s = 0.0
    place = 0
    while found := _DURATION_PART.match(text, place):
        total_s += float(found[1]) * _UNIT_S[found[2][0]]
        place = found.end()
    return total_s if place and place == len(text) else None


def format_moment(moment: datetime) -> str:
    """Formats an aware time as a timestamp. Raises `OverflowError` if UTC has no such year."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return f"{text[: TIMESTAMP_CHARACTERS - 1]}Z"


def zone_of(offset: str) -> timezone:
    """Returns the zone of `Z`, `+01:00` or `+0100`. Raises `ValueError` from 24 hours on."""
    if offset in "Zz":
        return UTC
    digits = offset.replace(":", "")
    shift = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
    return timezone(-shift if digits[0] == "-" else shift)


def _absolute(match: re.Match[str], text: str, now: datetime) -> datetime:
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        zone = now.tzinfo if offset is None else zone_of(offset)
        return datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "0").ljust(6, "0")[:6]),
            tzinfo=zone,
        )
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}; expected {_ALLOWED}") from None
