"""Times as people are shown them: by the clock, as an age, with the time since the last record.

No clock is read here: what is now comes from outside.
"""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from logengine.format.timestamp import parse_timestamp

# Records of so many different seconds are formatted once each, then it begins again.
_SECONDS_KEPT = 1024
_SECOND_CHARACTERS = len("2026-11-23T20:00:00")
_DATE_CHARACTERS = len("2026-11-23 ")
_MILLISECONDS_STOP = len("2026-11-23T20:00:00.123")
_NS_PER_S = 1_000_000_000
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_AGE_CHARACTERS = len("999d23h ago")


class Clock(Protocol):
    """A way to show the `_ts` of one record after the other, in text of the same width."""

    def __call__(self, timestamp: str) -> str:
        """Returns the time of the next record as it is shown."""


class WallClock:
    """The time to the millisecond in a zone: `2026-11-23 20:00:00.123`, and `Z` in UTC.

    Without a date if `time_only`.
    """

    def __init__(self, zone: tzinfo, *, time_only: bool = False) -> None:
        self._zone = zone
        self._start = _DATE_CHARACTERS if time_only else 0
        self._end = "Z" if zone is UTC and not time_only else ""
        self._seconds: dict[str, str] = {}

    def __call__(self, timestamp: str) -> str:
        """See `Clock`."""
        second = timestamp[:_SECOND_CHARACTERS]
        shown = self._seconds.get(second) or self._shown(second)
        return f"{shown}{timestamp[_SECOND_CHARACTERS:_MILLISECONDS_STOP]}{self._end}"

    def _shown(self, second: str) -> str:
        if len(self._seconds) >= _SECONDS_KEPT:
            self._seconds.clear()
        try:
            moment = datetime.fromisoformat(second).replace(tzinfo=UTC).astimezone(self._zone)
            text = moment.replace(tzinfo=None).isoformat(" ")
        except (OverflowError, ValueError):  # the ends of the calendar
            text = second.replace("T", " ")
        shown = self._seconds[second] = text[self._start :]
        return shown


class Ages:
    """How long ago it was: `3m12s ago`. `now_s` returns the seconds since the epoch."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s

    def __call__(self, timestamp: str) -> str:
        """See `Clock`."""
        age_s = int(self._now_s()) - parse_timestamp(timestamp) // _NS_PER_S
        text = f"{_brief(age_s)} ago" if age_s >= 0 else f"in {_brief(-age_s)}"
        return text.rjust(_AGE_CHARACTERS)


class Deltas:
    """The time of the day, and the time since the record that was shown before: `+0.012s`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ns: int | None = None

    def __call__(self, timestamp: str) -> str:
        """See `Clock`."""
        time_ns = parse_timestamp(timestamp)
        passed_ns = 0 if self._last_ns is None else time_ns - self._last_ns
        self._last_ns = time_ns
        passed_us = abs(passed_ns) // 1000
        sign = "-" if passed_ns < 0 else "+"
        delta = f"{sign}{passed_us // 1_000_000}.{passed_us % 1_000_000:06d}s"
        return f"{self._clock(timestamp)} {delta:>13}"


def _brief(seconds: int) -> str:
    """Returns a duration in its two greatest units, `2h05m`."""
    if seconds < _MINUTE_S:
        return f"{seconds}s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S}m{seconds % _MINUTE_S:02d}s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S}h{seconds % _HOUR_S // _MINUTE_S:02d}m"
    return f"{seconds // _DAY_S}d{seconds % _DAY_S // _HOUR_S:02d}h"
