"""Reads the records that are shown: follows in a thread, reads pages and searches in others.

The screen takes what is there when it draws; no thread ever waits for it with more than it may
hold. Threads do not keep the process alive: whoever leaves waits for nothing.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from logengine.errors import LogEngineError
from logengine.filtering.levels import LEVEL_NAMES
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
from logengine.rendering.fields import decode_line
from logengine.rendering.levels import level_field, rank_of
from logengine.top.window import KEPT_MAX

PAGE = 300
# Pages of many streams hold so many records of each.
_PAGE_OF_MANY, _MANY_STREAMS = 60, 30
_PROBLEMS_MAX = 100
Result = TypeVar("Result")
IsStopped = Callable[[], bool]

# Every line with an error contains this: the end of the name of a field with a level, and the
# beginning of a value that is an error, a name or a number.
_MAYBE_ERROR = re.compile(rb'[LlYyTtOoRrMmEe]"[ \t]*:[ \t]*"?[EeFfCcAaPpSs0-9]')
_ERROR = LEVEL_NAMES.index("error")


def error_lines(body: bytes) -> Iterator[tuple[int, int]]:
    """Yields the lines of errors, and of what is worse, as ranges of bytes with their newlines.

    Their levels are those that `level_field` finds, in any spelling.
    """
    stop = 0
    while (found := _MAYBE_ERROR.search(body, stop)) is not None:
        start = body.rfind(b"\n", 0, found.start()) + 1
        stop = body.find(b"\n", found.end()) + 1 or len(body)
        fields = decode_line(body[start : stop - 1])
        name = level_field(fields)
        rank = None if name is None else rank_of(name, fields[name])
        if rank is not None and rank >= _ERROR:
            yield start, stop


class _Stopped(Exception):
    """Nobody wants the result any more."""


class _Chosen(Filter):
    """What a filter chooses, and of that only errors, if `errors_only`.

    It ends the reading that uses it, between two blocks, once it is to stop.
    """

    def __init__(self, chosen: Filter, is_stopped: IsStopped, *, errors_only: bool = False) -> None:
        super().__init__()
        self._chosen = chosen
        self._is_stopped = is_stopped
        self._errors_only = errors_only

    @property
    def chooses_all(self) -> bool:
        return self._chosen.chooses_all and not self._errors_only

    @property
    def literals(self) -> Literals:
        return self._chosen.literals

    def choose(self, block: Block) -> Iterator[Block]:
        if self._is_stopped():
            raise _Stopped
        if not self._errors_only:
            return self._chosen.choose(block)
        errors = block.parts(error_lines(block.body))
        return (part for each in errors for part in self._chosen.choose(each))

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

    def chosen(self) -> Filter:
        """Returns the filter. Raises `InvalidFilter`."""
        return Filter.of(self.wheres)

    def before(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """A page of records before a record."""
        return self._before(place, self._page(), is_stopped)

    def after(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """A page of records after a record."""
        return self._after(place, self._page(), is_stopped)

    def since(self, timestamp: str, is_stopped: IsStopped) -> list[Record]:
        """A page of records from a time on."""
        return records_since(
            self.data,
            self._names(),
            timestamp,
            self._page(),
            _Chosen(self.chosen(), is_stopped),
            self.report,
        )

    def oldest(self, is_stopped: IsStopped) -> list[Record]:
        """The first page."""
        return self.since("", is_stopped)

    def around(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """A page of records, with `place` among them."""
        page = self._page() // 2
        return [
            *self._before(place, page, is_stopped),
            place,
            *self._after(place, page, is_stopped),
        ]

    def error_after(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """The next error after a record."""
        return self._after(place, 1, is_stopped, errors_only=True)

    def error_before(self, place: Record, is_stopped: IsStopped) -> list[Record]:
        """The last error before a record."""
        return self._before(place, 1, is_stopped, errors_only=True)

    def _before(
        self, place: Record, count: int, is_stopped: IsStopped, *, errors_only: bool = False
    ) -> list[Record]:
        chosen = _Chosen(self.chosen(), is_stopped, errors_only=errors_only)
        return records_before(self.data, self._names(), place, count, chosen, self.report)

    def _after(
        self, place: Record, count: int, is_stopped: IsStopped, *, errors_only: bool = False
    ) -> list[Record]:
        chosen = _Chosen(self.chosen(), is_stopped, errors_only=errors_only)
        return records_after(self.data, self._names(), place, count, chosen, self.report)

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
            where=_Chosen(source.chosen(), lambda: self._is_stopped),
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
