"""Times as records hold them: RFC 3339, UTC, microseconds, always 27 characters.

The fixed width makes the order of the strings the order of the times, so that nothing
on the way of a record has to parse one.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

TIMESTAMP_CHARACTERS = 27

_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_RELATIVE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s*([Zz]|[+-]\d\d:?\d\d)?)?"
)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_ALLOWED = "an RFC 3339 time, '10m', '2h' or '3d' ago, 'now', 'today' or 'yesterday'"


def format_timestamp(time_ns: int) -> str:
    """The time `time_ns` nanoseconds after the epoch, such as 2026-11-23T20:00:00.000123Z."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{_format_second(seconds)}.{rest_ns // 1000:06d}Z"


def format_time(time_s: float) -> str:
    """The same for seconds after the epoch, as `time.time` gives them."""
    seconds = int(time_s)
    # Twice as quick as a format of six digits, and it is done for each record of a handler.
    digits = str(int((time_s - seconds) * 1_000_000) + 1_000_000)
    return f"{_format_second(seconds)}.{digits[1:]}Z"


@lru_cache(maxsize=8)
def _format_second(seconds: int) -> str:
    # Not strftime: it imports, which fails while the interpreter ends.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def is_timestamp(text: str) -> bool:
    """Whether `text` is of exactly the form that `format_timestamp` gives."""
    if not _TIMESTAMP.fullmatch(text):
        return False
    try:
        # A tenth of what strptime takes, and every header that is read has three times or more.
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def parse_time(text: str, now: datetime) -> str:
    """The timestamp that a person's `text` means; `now` is an aware, local time.

    Takes an RFC 3339 time (without an offset it is local time; a date alone is its
    midnight), a duration ago (`90s`, `10m`, `2h`, `3d`, `1w`, also followed by `ago`),
    `now`, `today` and `yesterday` (local midnights). Raises `ValueError` saying what is
    allowed.
    """
    word = text.strip().lower().removesuffix("ago").strip()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if word == "now":
        moment = now
    elif word == "today":
        moment = midnight
    elif word == "yesterday":
        moment = midnight - timedelta(days=1)
    elif relative := _RELATIVE.fullmatch(word):
        try:
            moment = now - timedelta(seconds=float(relative[1]) * _UNIT_S[relative[2]])
        except OverflowError:
            raise ValueError(f"{text!r} lies before the year 1; expected {_ALLOWED}") from None
    elif absolute := _RFC3339.fullmatch(text.strip()):
        moment = _absolute(absolute, text, now)
    else:
        raise ValueError(f"{text!r} is not a time; expected {_ALLOWED}")
    return format_moment(moment)


def format_moment(moment: datetime) -> str:
    """An aware time as a timestamp. Raises `OverflowError` where UTC has no such year."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z".rjust(TIMESTAMP_CHARACTERS, "0")


def zone_of(offset: str) -> timezone:
    """The zone of RFC 3339's `Z`, `+01:00` or `+0100`. Raises `ValueError` from 24 hours on."""
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
