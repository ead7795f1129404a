"""Reads the records that are shown: follows in a thread, reads pages and searches in others.

The screen takes what is there when it draws; no thread ever waits for it with more than it may
hold. Threads do not keep the process alive: whoever leaves waits for nothing.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from logengine.errors import LogEngineError
from logengine.format.block import Block, Record
from logengine.format.search_filter import Literals
from logengine.reading import (
    Batch,
    Filter,
    Problem,
    Report,
    follow,
    records_after,
    records_before,
    records_since,
    stream_names,
)
from logengine.top.window import KEPT_MAX

PAGE = 300
# Pages of many streams hold so many records of each.
_PAGE_OF_MANY, _MANY_STREAMS = 60, 30
_PROBLEMS_MAX = 100
# The fields that loggers and importers write levels into.
_LEVEL_FIELDS = (
    *("level", "PRIORITY", "priority", "severity", "levelname", "lvl", "severity_text"),
    *("severity_number", "levelno", "log.level"),
)
ERRORS = " or ".join(f"{name} >= error" for name in _LEVEL_FIELDS)

Result = TypeVar("Result")
IsStopped = Callable[[], bool]


class _Stopped(Exception):
    """Nobody wants the result any more."""


class _Stoppable(Filter):
    """A filter that ends the reading that uses it, between two blocks, once it is to stop."""

    def __init__(self, chosen: Filter, is_stopped: IsStopped) -> None:
        super().__init__()
        self._chosen = chosen
        self._is_stopped = is_stopped

    @property
    def chooses_all(self) -> bool:
        return self._chosen.chooses_all

    @property
    def literals(self) -> Literals:
        return self._chosen.literals

    def choose(self, block: Block) -> Iterator[Block]:
        if self._is_stopped():
            raise _Stopped
        return self._chosen.choose(block)

    def ranges(self, body: bytes) -> Iterator[tuple[int, int]]:
        return self._chosen.ranges(body)


@dataclass(frozen=True)
class RecordSource:
    """The records of some streams, or of all, for which `wheres` hold.

    Its functions block. They return no record if there is none, and raise `OSError` and
    `LogEngineError`.
    """

    data: Path
    asked: Sequence[str] = ()
    wheres: Sequence[str] = ()
    report: Report = lambda _: None

    def chosen(self, *more: str) -> Filter:
        """Returns the filter, also with `more` expressions. Raises `InvalidFilter`."""
        return Filter.of([*self.wheres, *more])

    def before(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """A page of records before a record."""
        return self._before(place, self._page(), self.chosen(), is_stopped)

    def after(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """A page of records after a record."""
        return self._after(place, self._page(), self.chosen(), is_stopped)

    def since(self, timestamp: str, is_stopped: IsStopped) -> list[Record]:
        """A page of records from a time on."""
        return records_since(
            self.data,
            self._names(),
            timestamp,
            self._page(),
            _Stoppable(self.chosen(), is_stopped),
            self.report,
        )

    def oldest(self, is_stopped: IsStopped) -> list[Record]:
        """The first page."""
        return self.since("", is_stopped)

    def around(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """A page of records, with `place` among them."""
        page = self._page() // 2
        return [
            *self._before(place, page, self.chosen(), is_stopped),
            place,
            *self._after(place, page, self.chosen(), is_stopped),
        ]

    def error_after(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """The next error after a record."""
        return self._after(place, 1, self.chosen(ERRORS), is_stopped)

    def error_before(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """The last error before a record."""
        return self._before(place, 1, self.chosen(ERRORS), is_stopped)

    def _before(
        self, place: Record, count: int, chosen: Filter, is_stopped: IsStopped
    ) -> list[Record]:
        stoppable = _Stoppable(chosen, is_stopped)
        return records_before(self.data, self._names(), place, count, stoppable, self.report)

    def _after(
        self, place: Record, count: int, chosen: Filter, is_stopped: IsStopped
    ) -> list[Record]:
        stoppable = _Stoppable(chosen, is_stopped)
        return records_after(self.data, self._names(), place, count, stoppable, self.report)

    def _names(self) -> list[str]:
        return stream_names(*self.asked, data=self.data)

    def _page(self) -> int:
        return page_of(len(self._names()))


def page_of(streams: int) -> int:
    """Returns how many records are read at a time."""
    return _PAGE_OF_MANY if streams > _MANY_STREAMS else PAGE


@dataclass(frozen=True)
class Arrived:
    """What a `Follow` found since it was asked last: `records` are the last of `count`."""

    records: Sequence[Record]
    count: int
    problems: Sequence[Problem]
    error: Exception | None


class Follow:
    """Follows the records of a source, from its last ones on. Raises `InvalidFilter`."""

    def __init__(self, source: RecordSource) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._count = 0
        self._problems: list[Problem] = []
        self._error: Exception | None = None
        self._is_stopped = False
        try:
            last = source._page()  # noqa: SLF001 - of this module
        except LogEngineError:
            last = PAGE  # there is no stream yet
        self._following = follow(
            *source.asked,
            data=source.data,
            last=last,
            where=_Stoppable(source.chosen(), lambda: self._is_stopped),
            on_problem=self._note,
        )
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def has_begun(self) -> bool:
        """Whether the records that were there at the beginning were all taken."""
        began: Mapping[str, int] = self._following.began_after
        return bool(began)

    def take(self) -> Arrived:
        """Returns what is new."""
        with self._lock:
            arrived = Arrived(self._records, self._count, self._problems, self._error)
            self._records, self._count, self._problems = [], 0, []
            self._error = None
        return arrived

    def stop(self) -> None:
        """Ends the thread, soon."""
        self._is_stopped = True
        self._following.stop()

    def _note(self, problem: Problem) -> None:
        with self._lock:
            self._problems = [*self._problems, problem][-_PROBLEMS_MAX:]

    def _run(self) -> None:
        try:
            for batch in self._following.batches():
                self._hold(batch)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - the screen shows it
            with self._lock:
                self._error = error

    def _hold(self, batch: Batch) -> None:
        count = len(batch)
        records = list(batch.part(max(0, count - KEPT_MAX), count))
        with self._lock:
            self._records = [*self._records, *records][-KEPT_MAX:]
            self._count += count


class Work(Generic[Result]):
    """One thing that is done in a thread: searching, or reading a page."""

    def __init__(self, do: Callable[[IsStopped], Result]) -> None:
        self._do = do
        self._is_stopped = False
        self.is_done = False
        self.result: Result | None = None
        self.error: Exception | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Ends the thread, soon. There is no result."""
        self._is_stopped = True

    def _run(self) -> None:
        try:
            self.result = self._do(lambda: self._is_stopped)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - the screen shows it
            self.error = error
        self.is_done = True
