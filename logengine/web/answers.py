"""What a page is answered: reads a data directory, blocking, within a time that is given."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from logengine.aggregation.time_buckets import TimeBuckets
from logengine.errors import InvalidOption, LogEngineError, UnknownStream
from logengine.format.cursor import Cursor
from logengine.local_zone import LOCAL_ZONE
from logengine.reading import (
    Filter,
    Following,
    Limit,
    Pages,
    Report,
    StreamSummary,
    follow,
    stream_names,
    streams,
)
from logengine.web.filtering import FilterProcesses
from logengine.web.level_counts import LevelCounts, RememberedLevels
from logengine.web.query import STREAMS_MAX, Query, place_text
from logengine.web.rows import rows_of, whole_record

# How long a request reads before it answers with what it has, and where to go on.
_PAGE_S_MAX = 1.0
_HISTOGRAM_S_MAX = 0.4
_PAGE_BYTES_MAX = 4 * 1024 * 1024
_STREAMS_LISTED_MAX = 5000
_BUCKETS_MAX = 2000
_BUCKETS_WANTED = 150
# A histogram begins a bucket at round times.
_LENGTHS_S = (
    *(0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 21_600, 43_200, 86_400, 7 * 86_400, 28 * 86_400, 364 * 86_400),
)

Answer = dict[str, Any]


class Cancelled(Exception):
    """The client has left: nobody wants the answer."""


class Answers:
    """Answers about the data directory `data`, with the permissions of this process.

    Methods block. They raise the errors of `logengine.errors` that a query is to blame for.
    `cancelled` is set when nobody waits any more.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._processes = FilterProcesses()
        self._levels = RememberedLevels()

    def streams(self, _query: Query, cancelled: threading.Event) -> Answer:
        """The streams, with what is in them; of one that cannot be read, why."""
        names = stream_names(data=self._data)
        listed: list[StreamSummary | Mapping[str, str]] = []
        for name in names[:_STREAMS_LISTED_MAX]:
            if cancelled.is_set():
                raise Cancelled
            try:
                listed += streams(name, data=self._data)
            except OSError as error:
                listed.append({"stream": name, "error": error.strerror or str(error)})
            except UnknownStream:
                continue  # it was removed meanwhile
        return {"streams": listed, "omitted": max(0, len(names) - _STREAMS_LISTED_MAX)}

    def records(self, query: Query, cancelled: threading.Event) -> Answer:
        """A page of records."""
        pages, place = self._pages_and_place(query)
        limit = Limit(query.limit, _PAGE_BYTES_MAX, _time_is_over(_PAGE_S_MAX, cancelled))
        page = pages.after(place, limit) if query.is_after else pages.before(place, limit)
        return {
            "rows": rows_of(page.items),
            "begin": place_text(page.begin),
            "end": place_text(page.end),
            "is_last": page.is_last,
            "since": query.times.since,
            "until": query.times.until,
        }

    def record(self, query: Query, cancelled: threading.Event) -> Answer:
        """One record with all that it has. Raises `UnknownStream` if it cannot be read."""
        if query.at is None:
            raise InvalidOption("at is missing; expected a cursor, STREAM:SEQ")
        after = Cursor(query.at.stream, max(0, query.at.seq - 1))
        problems: list[object] = []
        pages = Pages(stream_names(after.stream, data=self._data), data=self._data)
        limit = Limit(1, 1, lambda: True)
        page = pages.after({after.stream: after.seq + 1}, limit)
        for each in page.items:
            if getattr(each, "seq", None) == query.at.seq:
                return {"record": whole_record(each)}  # type: ignore[arg-type]
            problems.append(each)
        why = f": {problems[0]}" if problems else "; the stream ends before it"
        raise UnknownStream(f"there is no record {query.at}{why}")

    def histogram(self, query: Query, cancelled: threading.Event) -> Answer:
        """How many records there are of each level over time, those of the latest times first.

        With `levels_later`, records need not be read of which the level is then `UNREAD`.
        """
        pages, place = self._pages_and_place(query)
        since, until = self._bounds(query, pages.streams)
        answer: Answer = {"since": since, "until": until, "levels": [], "is_last": True}
        if since is None or until is None:
            return answer
        length_s = _seconds_between(since, until)
        every_s = query.every_s or _bucket_length_s(length_s)
        if length_s / every_s > _BUCKETS_MAX:
            raise InvalidOption(f"every is {every_s} s; expected at most {_BUCKETS_MAX} buckets")
        counting = LevelCounts(
            TimeBuckets(every_s, LOCAL_ZONE),
            every_s,
            self._levels,
            may_count_unread=query.levels_later,
        )
        is_over = _time_is_over(_HISTOGRAM_S_MAX, cancelled)
        place, is_last = pages.each_block_before(place, counting.add, is_over, counting.passes)
        return answer | {
            "counts": counting.counts(),
            "every": every_s,
            "from": place_text(place),
            "is_last": is_last,
        }

    def following(self, query: Query, report: Report) -> Following:
        """What follows the place of `query`, whatever its filter chooses."""
        names = self._streams(query)
        readable = [name for name in names if os.access(self._data / name, os.R_OK | os.X_OK)]
        place = query.place or {}
        after = [Cursor(stream, seq - 1) for stream, seq in place.items() if stream in readable]
        # Patterns also follow streams that appear later, which is not worth an error of others.
        asked = query.streams or ("*",)
        if len(readable) < len(names):
            asked = tuple(readable)
        if not asked:
            raise UnknownStream("none of the streams can be read: Permission denied")
        return follow(*asked, data=self._data, after=after, on_problem=report)

    def filter(self, query: Query) -> Filter:
        """The filter of `query`. Raises `InvalidFilter`."""
        return self._processes.filter(query.where, query.text)

    def close(self) -> None:
        """Ends the processes that filter."""
        self._processes.close()

    def _pages_and_place(self, query: Query) -> tuple[Pages, Mapping[str, int]]:
        chosen = self.filter(query)
        pages = Pages(self._streams(query), data=self._data, chosen=chosen, times=query.times)
        if query.place is not None:
            return pages, query.place
        if query.at is not None:
            if query.at.stream not in pages.streams:
                raise InvalidOption(f"at names {query.at.stream}; add it to the streams")
            return pages, pages.at(query.at)
        if query.time is not None:
            return pages, pages.at_time(query.time)
        return pages, pages.start() if query.is_after else pages.end()

    def _streams(self, query: Query) -> Sequence[str]:
        names = stream_names(*query.streams, data=self._data)
        if len(names) > STREAMS_MAX:
            raise InvalidOption(
                f"there are {len(names):,} streams; choose up to {STREAMS_MAX} of them"
            )
        return names

    def _bounds(self, query: Query, names: Sequence[str]) -> tuple[str | None, str | None]:
        """The times of the histogram: what is asked for, or what there is."""
        since, until = query.times.since, query.times.until
        if since is not None and until is not None:
            return since, until
        found: list[StreamSummary] = []
        for name in names:
            try:
                found += streams(name, data=self._data)
            except (OSError, LogEngineError):
                continue  # the page of records says why
        first = min((each.since for each in found if each.since), default=None)
        last = max((each.until for each in found if each.until), default=None)
        if since is None:
            since = first
        if until is None and last is not None:
            until = max(last, since or last)
        return since, until


def _time_is_over(seconds: float, cancelled: threading.Event) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds

    def is_over() -> bool:
        if cancelled.is_set():
            raise Cancelled
        return time.monotonic() >= deadline

    return is_over


def _seconds_between(since: str, until: str) -> float:
    start, stop = (datetime.fromisoformat(each) for each in (since, until))
    return max(0.0, (stop - start).total_seconds())


def _bucket_length_s(length_s: float) -> float:
    wanted = length_s / _BUCKETS_WANTED
    return next((each for each in _LENGTHS_S if each >= wanted), _LENGTHS_S[-1])
