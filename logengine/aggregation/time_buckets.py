"""Divides the time into buckets of one length, by the clock of a time zone."""

from datetime import UTC, datetime, timedelta, tzinfo

from logengine.format.json_object import OPENING
from logengine.format.timestamp import format_moment

_DAY_S = 86_400
_MONDAY = datetime(1969, 12, 29)  # noqa: DTZ001 - as a clock shows it; buckets begin with a week
_REMEMBERED_MAX = 100_000
_TIMESTAMP_START = len(OPENING)
# How much of a timestamp says in which bucket it is: 2026-11-23T20:00:00.000000
_TO_MINUTE, _TO_SECOND, _TO_MICROSECOND = 16, 19, 26


class TimeBuckets:
    """Buckets of `length_s` seconds, at least a microsecond.

    Buckets of whole days begin at midnight in `zone`, even on a day of 23 or 25 hours, and weeks on
    Monday. Others begin where `length_s` divides the time since then as the clock shows it, so that
    an hour that occurs twice is not one bucket.
    """

    def __init__(self, length_s: float, zone: tzinfo) -> None:
        self._length = timedelta(seconds=length_s)
        self._is_of_days = not self._length % timedelta(seconds=_DAY_S)
        self._zone = zone
        self._starts: dict[bytes, str] = {}
        # Since 1972, every zone is off UTC by whole minutes.
        if not self._length % timedelta(minutes=1):
            characters = _TO_MINUTE
        elif not self._length % timedelta(seconds=1):
            characters = _TO_SECOND
        else:
            characters = _TO_MICROSECOND
        self.part_of_timestamp = slice(characters)
        self.part = slice(_TIMESTAMP_START, _TIMESTAMP_START + characters)

    def start(self, time: bytes) -> str:
        """Returns the start of the bucket, as a timestamp; `time` is `part` of a stored line."""
        start = self._starts.get(time)
        if start is None:
            if len(self._starts) >= _REMEMBERED_MAX:
                self._starts.clear()
            start = self._starts[time] = self._start_of(
                datetime.fromisoformat(time.decode()).replace(tzinfo=UTC)
            )
        return start

    def after(self, start: str) -> str:
        """Returns the start of the bucket after the one that begins at `start`."""
        moment = datetime.fromisoformat(start)
        # A day may have 25 hours.
        step = self._length * 1.5 if self._is_of_days else self._length
        return self._start_of(moment + step)

    def _start_of(self, moment: datetime) -> str:
        try:
            local = moment.astimezone(self._zone)
            passed = (local.replace(tzinfo=None) - _MONDAY) % self._length
            if self._is_of_days:
                return format_moment((local - passed).replace(fold=0))
            return format_moment(moment - passed)
        except (OverflowError, ValueError):  # at the ends of the calendar
            return format_moment(moment)
