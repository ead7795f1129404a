"""A year of a busy host: which lines arrive in which stream, and when. No clock, no files.

web      requests all day and night, fewer at night
app      working hours, a little at night, almost nothing at the weekend
cron     a burst every five minutes
audit    a record every two hours
backup   two busy days, then five weeks of silence
mobile   like web, from July on
"""

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 86_400.0
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_STARTS = [datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 13)]
YEAR_START_NS = int(_STARTS[0].timestamp()) * 10**9
# The start of each month, and of the next year, in seconds from the start of this one.
MONTH_STARTS_S = [(start - _STARTS[0]).total_seconds() for start in _STARTS] + [365 * DAY_S]
_JULY_S = MONTH_STARTS_S[MONTHS.index("July")]
_SILENT_DAYS, _BACKUP_DAYS = 35.0, 2.0
_LITTLE_S = 1.0


class Event:
    """Lines that arrive in a stream together; none if it has been silent for long."""

    __slots__ = ("lines", "stream", "time_s")

    def __init__(self, time_s: float, stream: str, lines: int) -> None:
        self.time_s = time_s
        self.stream = stream
        self.lines = lines

    def __lt__(self, other: "Event") -> bool:
        return self.time_s < other.time_s


@dataclass(frozen=True)
class Kind:
    """The traffic of a stream: about `lines_each` lines every `gap_s`, on average if not regular.

    `share` says which share of that arrives at a time of the year, from 0 to 1.
    """

    stream: str
    lines: str  # their kind
    gap_s: float
    lines_each: int
    share: Callable[[float], float]
    is_regular: bool = False


def _day_and_night(time_s: float) -> float:
    return 0.55 - 0.45 * math.cos(2 * math.pi * (time_s % DAY_S) / DAY_S)


def _working_hours(time_s: float) -> float:
    weekday = (_STARTS[0].weekday() + int(time_s // DAY_S)) % 7
    hour = time_s % DAY_S / HOUR_S
    is_at_work = weekday < 5 and 8 <= hour < 18
    return 1.0 if is_at_work else 0.1 if weekday < 5 else 0.02


def _always(time_s: float) -> float:
    return 1.0


def _now_and_then(time_s: float) -> float:
    cycle_s = (_SILENT_DAYS + _BACKUP_DAYS) * DAY_S
    return 1.0 if time_s % cycle_s < _BACKUP_DAYS * DAY_S else 0.0


def _from_july(time_s: float) -> float:
    return _day_and_night(time_s) if time_s >= _JULY_S else 0.0


KINDS = (
    Kind("web", "web", 1.1 * MINUTE_S, 16, _day_and_night),
    Kind("app", "app", 1.5 * MINUTE_S, 6, _working_hours),
    Kind("cron", "cron", 5 * MINUTE_S, 6, _always, is_regular=True),
    Kind("audit", "audit", 2 * HOUR_S, 1, _always),
    Kind("backup", "backup", 0.5 * MINUTE_S, 8, _now_and_then),
    Kind("mobile", "web", 3 * MINUTE_S, 8, _from_july),
)
LINES_OF = {kind.stream: kind.lines for kind in KINDS}


def events(scale: float, silences_s: Sequence[float]) -> Iterator[Event]:
    """All events of a year, in order of time; with a `scale` below 1, that share of them.

    If a stream is silent for longer than one of the ascending `silences_s`, there is an
    event without lines when that time has passed.
    """
    streams = [
        _with_silences(_of_kind(kind, scale, seed), silences_s) for seed, kind in enumerate(KINDS)
    ]
    return heapq.merge(*streams)


def _of_kind(kind: Kind, scale: float, seed: int) -> Iterator[Event]:
    source = random.Random(seed)
    end_s = MONTH_STARTS_S[-1]
    time_s = 0.0
    while True:
        gap_s = kind.gap_s / scale
        time_s += gap_s if kind.is_regular else source.expovariate(1) * gap_s
        if time_s >= end_s:
            return
        if source.random() < kind.share(time_s):
            yield Event(time_s, kind.stream, round(kind.lines_each * (0.5 + source.random())) or 1)


def _with_silences(of_stream: Iterator[Event], silences_s: Sequence[float]) -> Iterator[Event]:
    before: Event | None = None
    for event in of_stream:
        if before is not None:
            for silence_s in silences_s:
                if event.time_s - before.time_s > silence_s + _LITTLE_S:
                    yield Event(before.time_s + silence_s + _LITTLE_S, event.stream, 0)
        yield event
        before = event
