"""What a page asks for, from the query of a URL. No I/O, no clock.

| name | means |
|---|---|
| `stream` | a stream or a pattern; repeated for several; all without it |
| `where` | an expression of `docs/filter.md`; repeated, all must hold |
| `text` | plain text that the stored line contains, whatever the case of ASCII letters |
| `since`, `until` | times as `--since` and `--until` take them |
| `from` | a place: `app:5,web:7`, the next record of each stream |
| `at` | a cursor, `STREAM:SEQ`: the place before that record |
| `time` | a time: the place before the first records since then |
| `direction` | `before` or `after` the place |
| `limit` | how many records |
| `every` | the length of a histogram's buckets in seconds |
| `levels` | `later`: levels that are not known yet may be left out of a histogram |
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from logengine.errors import InvalidOption
from logengine.format.cursor import Cursor
from logengine.format.time_range import TimeRange, checked
from logengine.format.timestamp import parse_time

RECORDS_MAX = 1000
RECORDS_DEFAULT = 200
STREAMS_MAX = 256
EVERY_S_MIN = 0.001
_DIRECTIONS = ("before", "after")
_LISTS = ("stream", "where")
_NAMES = frozenset(
    (
        *_LISTS,
        "text",
        "since",
        "until",
        "from",
        "at",
        "time",
        "direction",
        "limit",
        "every",
        "levels",
    )
)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a page asks for. `place` is None for the end, or for the start if `is_after`."""

    streams: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    text: str | None = None
    times: TimeRange = TimeRange()
    place: Mapping[str, int] | None = None
    at: Cursor | None = None
    time: str | None = None
    is_after: bool = False
    limit: int = RECORDS_DEFAULT
    every_s: float | None = None
    levels_later: bool = False


def parse_query(pairs: Iterable[tuple[str, str]], now: datetime) -> Query:
    """Returns what the pairs of a URL's query mean; `now` is the time in the user's zone.

    Raises `InvalidOption` and `InvalidCursor`.
    """
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    single: dict[str, str] = {}
    for name, value in pairs:
        if name not in _NAMES:
            raise InvalidOption(
                f"{name!r} is not known; expected one of {', '.join(sorted(_NAMES))}"
            )
        if not value:
            continue
        if name in lists:
            lists[name].append(value)
        elif name in single:
            raise InvalidOption(f"{name} is there twice; expected it once")
        else:
            single[name] = value
    direction = single.get("direction", "before")
    if direction not in _DIRECTIONS:
        raise InvalidOption(f"direction is {direction!r}; expected before or after")
    levels = single.get("levels")
    if levels not in (None, "later"):
        raise InvalidOption(f"levels is {levels[:20]!r}; expected later, or nothing")
    places = [name for name in ("from", "at", "time") if name in single]
    if len(places) > 1:
        raise InvalidOption(f"{' and '.join(places)} are all places; expected one")
    return Query(
        streams=tuple(lists["stream"]),
        where=tuple(lists["where"]),
        text=single.get("text"),
        times=checked(TimeRange(_time(single, "since", now), _time(single, "until", now))),
        place=parse_place(single["from"]) if "from" in single else None,
        at=Cursor.parse(single["at"]) if "at" in single else None,
        time=_time(single, "time", now),
        is_after=direction == "after",
        limit=_limit(single.get("limit")),
        every_s=_every_s(single.get("every")),
        levels_later=levels is not None,
    )


def parse_place(text: str) -> dict[str, int]:
    """Returns the place written as `app:5,web:7`. Raises `InvalidCursor` and `InvalidOption`."""
    cursors = text.split(",")
    if len(cursors) > STREAMS_MAX:
        raise InvalidOption(f"from has {len(cursors)} streams; expected at most {STREAMS_MAX}")
    return {cursor.stream: max(1, cursor.seq) for cursor in map(Cursor.parse, cursors)}


def place_text(place: Mapping[str, int]) -> str:
    """Returns a place as `parse_place` takes it."""
    return ",".join(f"{stream}:{seq}" for stream, seq in place.items())


def _time(single: Mapping[str, str], name: str, now: datetime) -> str | None:
    if name not in single:
        return None
    try:
        return parse_time(single[name], now, is_end=name == "until")
    except (ValueError, OverflowError) as error:
        raise InvalidOption(f"{name}: {error}") from None


def _limit(text: str | None) -> int:
    if text is None:
        return RECORDS_DEFAULT
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(RECORDS_MAX))):
        raise InvalidOption(f"limit is {text[:20]!r}; expected a number up to {RECORDS_MAX}")
    return min(RECORDS_MAX, max(1, int(text)))


def _every_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not EVERY_S_MIN <= seconds <= 36_525 * 86_400:
        raise InvalidOption(f"every is {text[:20]!r}; expected seconds, at least {EVERY_S_MIN}")
    return seconds
