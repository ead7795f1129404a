"""Follows new records of a data directory, for a plain loop and for asyncio.

A plain loop must work inside a running event loop, as in a notebook. So a thread with its own event
loop waits for records. It reads at most a few blocks ahead.
"""

import contextlib
import errno
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from logengine.disk.segment_file import list_streams
from logengine.errors import InvalidOption
from logengine.format.block import Block, Record
from logengine.format.time_range import TimeRange
from logengine.reading.batch import Batch, PendingGaps
from logengine.reading.context import Window
from logengine.reading.filter import Filter, Patterns
from logengine.reading.listing import (
    AnyPath,
    ChosenStreams,
    check_data_directory,
    check_stream_names,
    data_directory,
)
from logengine.reading.merging import last_merged, merge_by_time
from logengine.reading.problem import Problem, Report, raise_or_warn
from logengine.reading.read_ahead import begun_before_fork
from logengine.reading.read_records import (
    BATCH_RECORDS,
    Cursors,
    RangeBy,
    check_cursors,
    checked_last,
    context_start,
    ignore,
    parse_cursors,
    time_range,
)
from logengine.reading.reader import ALL_RECORDS, StreamReader

if TYPE_CHECKING:
    import asyncio

# Limit of what the thread has read and the loop has not taken: blocks, which are a few MiB at most,
# and problems.
_AHEAD_MAX = 4


def follow(
    *streams: str,
    data: AnyPath | None = None,
    after: Cursors = (),
    since: str | datetime | None = None,
    by: RangeBy = "time",
    last: int | None = None,
    where: Filter | str | Iterable[str] = (),
    grep: Patterns = None,
    fixed: bool = False,
    ignore_case: bool = False,
    invert: bool = False,
    timeout_s: float | None = None,
    on_problem: Report | None = None,
) -> "Following":
    """The records that are added to the named streams, or to all, as soon as they are durable.

    Streams and the data directory need not exist yet; all records of a stream that appears later
    are new.
    `last`: starts with the last existing records, at most this many; by default with none.
    `since`: starts with all existing records from this time on, or with the `last` of these.
    `after`: starts after these cursors, and reads a stream without a cursor from its start. Without
    `streams`, only streams with a cursor are followed.
    `timeout_s`: ends after this many seconds; without it, only `stop` ends it.
    Everything else is as for `read`.

    Raises `InvalidStreamName`, `InvalidCursor`, `InvalidFilter`, `InvalidOption`, and
    `UnknownStream` for a directory that is no data directory.
    """
    cursors = parse_cursors(after)
    check_stream_names(streams)
    if streams and cursors:
        check_cursors(cursors, ChosenStreams(streams))
    last = checked_last(last)
    if (last or since is not None) and cursors:
        named = "last" if last else "since"
        raise InvalidOption(f"{named} and after both set the start; give only one of them")
    directory = data_directory(data).absolute()
    with contextlib.suppress(OSError):  # it may become readable
        check_data_directory(directory)
    return Following(
        directory,
        tuple(streams or cursors) or None,
        cursors,
        time_range(since, None, by),
        last,
        Filter.of(where, grep, fixed=fixed, ignore_case=ignore_case, invert=invert),
        timeout_s,
        on_problem or raise_or_warn,
    )


class Following:
    """Records to follow. Each pass begins at the start, and waits for more at the end.

    Created by `follow`. A pass is a plain loop, or an `async for`. It raises `OSError`, and what
    `on_problem` raises.
    """

    def __init__(
        self,
        data: Path,
        streams: Sequence[str] | None,
        after: Mapping[str, int],
        times: TimeRange,
        last: int | None,
        chosen: Filter,
        timeout_s: float | None,
        on_problem: Report,
    ) -> None:
        self.data = data
        self.streams = streams
        self._chosen_streams = None if streams is None else ChosenStreams(streams)
        self._after = after
        self._times = times
        self._last = last
        self._chosen = chosen
        self._timeout_s = timeout_s
        self._on_problem = on_problem
        self._is_stopped = False
        self._passes: set[_Pass] = set()
        # What `last` or `since` made a pass begin after, known once those records were taken.
        self.began_after: Mapping[str, int] = {}

    def continue_after(self, positions: Mapping[str, int]) -> None:
        """Makes the next pass begin after these numbers of the streams that are followed.

        If there are any, `last` has no effect, and other streams are read from their start.
        """
        self._after = {name: seq for name, seq in positions.items() if self._follows(name)}

    def _follows(self, stream: str) -> bool:
        return self._chosen_streams is None or stream in self._chosen_streams

    def stop(self) -> None:
        """Ends all passes, also future ones. Callable from any thread or signal handler.

        A pass ends when its next record is requested, or immediately if it is waiting for one.
        """
        self._is_stopped = True
        for each in tuple(self._passes):
            each.stop()

    def __iter__(self) -> Iterator[Record]:
        for batch in self.batches():
            for record in batch:
                if self._is_stopped:
                    return
                yield record

    def batches(self) -> Iterator[Batch]:
        """The records in batches, for callers that want many at a time, as bytes."""
        gaps = PendingGaps()
        note_and_report = gaps.noting(self._on_problem)
        for item in self._in_thread():
            if isinstance(item, Problem):
                note_and_report(item)
            else:
                yield gaps.batch(item)

    def with_problems(self) -> Iterator[Record | Problem]:
        """The records, and each problem before the records of its stream that come after it.

        Nothing is passed to `on_problem`.
        """
        for item in self._in_thread():
            if isinstance(item, Problem):
                yield item
            else:
                yield from Batch(item, {})

    async def __aiter__(self) -> AsyncIterator[Record]:
        async with contextlib.aclosing(self.async_batches()) as batches:
            async for batch in batches:
                for record in batch:
                    if self._is_stopped:
                        return
                    yield record

    async def async_batches(self) -> AsyncGenerator[Batch, None]:
        """Like `batches`, for asyncio; without a thread."""
        gaps = PendingGaps()
        with self._pass() as current:
            chunks = self._until_stopped(current, gaps.noting(self._on_problem))
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield gaps.batch(chunk)

    async def async_groups(self, before: int, after: int) -> AsyncGenerator[Batch | None, None]:
        """Like `async_batches`, with up to so many records before and after each.

        None stands between groups that are not adjacent. Records after one come as they arrive.
        """
        gaps = PendingGaps()
        window = Window(self._chosen, before, after)
        with self._pass() as current:
            chunks = self._until_stopped(current, gaps.noting(self._on_problem), window)
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    for group in window.groups(gaps.batch(chunk)):
                        yield group

    @contextlib.contextmanager
    def _pass(self) -> Iterator["_Pass"]:
        current = _Pass()
        self._passes.add(current)
        try:
            if self._is_stopped:
                current.stop()
            yield current
        finally:
            current.stop()
            self._passes.discard(current)

    def _in_thread(self) -> Iterator[Block | Sequence[Record] | Problem]:
        """The results of a pass in a thread, in order. The thread ends soon after this."""
        with self._pass() as current:
            threading.Thread(target=self._run, args=(current,), daemon=True).start()
            while (item := current.take()) is not None:
                yield item

    def _run(self, current: "_Pass") -> None:
        async def hand_over() -> None:
            async for chunk in self._until_stopped(current, current.put):
                current.put(chunk)

        try:
            import asyncio

            asyncio.run(hand_over())
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the loop of the pass
            current.end(error)
        else:
            current.end(None)

    async def _until_stopped(
        self, current: "_Pass", report: Report, window: Window | None = None
    ) -> AsyncGenerator[Block | Sequence[Record], None]:
        """The records, until the pass is stopped or its time is over."""
        import asyncio

        loop = asyncio.get_running_loop()
        deadline = None if self._timeout_s is None else loop.time() + self._timeout_s
        current.loop = loop
        async with contextlib.aclosing(self._chunks(report, window)) as chunks:
            while not current.is_stopped and (deadline is None or loop.time() < deadline):
                try:
                    async with asyncio.timeout_at(deadline) as current.waiting:
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if current.waiting is not None and current.waiting.expired():
                        return
                    raise
                finally:
                    current.waiting = None
                yield chunk

    async def _chunks(
        self, report: Report, window: Window | None
    ) -> AsyncGenerator[Block | Sequence[Record], None]:
        """Yields the chosen records; with a `window`, which chooses, all that it may show."""
        # This imports asyncio; a command that only reads starts faster without it.
        from logengine.reading.follower import Follower

        chosen = self._chosen if window is None else ALL_RECORDS
        readers = {
            stream: StreamReader(self.data, stream, report, seq + 1, reports_removed=True)
            for stream, seq in self._after.items()
        }
        if not self._times.holds_every_time and self._last is None:
            for records in self._records_in_range(readers, report, chosen):
                yield records
            self.began_after = {stream: reader.next_seq - 1 for stream, reader in readers.items()}
        elif not self._after:
            last = self._last_records(readers, report)
            began_after = {stream: reader.next_seq - 1 for stream, reader in readers.items()}
            if window is not None:
                for records in self._around(last, readers, window):
                    yield records
            elif last:
                yield last
            self.began_after = began_after
        async for block in Follower(self.data, self._chosen_streams, readers, report).blocks():
            for part in chosen.choose(block):
                yield part

    def _around(
        self, last: Sequence[Record], readers: Mapping[str, StreamReader], window: Window
    ) -> Iterator[Sequence[Record]]:
        """Yields the records before which `readers` stand, from the context of `last` on.

        Without any, yields nothing, and shows the window the newest: they are before what comes.
        """
        begin = {
            stream: context_start(self.data, stream, last[0], window.before)
            if last
            else max(0, reader.next_seq - 1 - window.before)
            for stream, reader in readers.items()
        }
        window.begin_at(last[0].cursor if last else None)
        merged = merge_by_time(
            [
                self._existing_records(stream, begin[stream] + 1, reader.next_seq)
                for stream, reader in readers.items()
            ]
        )
        while records := list(islice(merged, BATCH_RECORDS)):
            if last:
                yield records
            else:
                window.pass_over(Batch(records, {}))

    def _existing_records(self, stream: str, start: int, stop: int) -> Iterator[Record]:
        """Yields the records of a stream from number `start` up to `stop`, exclusive."""
        reader = StreamReader(self.data, stream, ignore, start)  # what is gone was reported
        with _absent_is_empty():
            for block in reader.read(TimeRange()):
                for record in block.records():
                    if record.seq >= stop:
                        return
                    yield record

    def _last_records(self, readers: dict[str, StreamReader], report: Report) -> list[Record]:
        """The last durable records of the existing streams; adds readers that continue after them.

        A stream without a reader is new as a whole when it appears.
        """
        from logengine.reading.follower import last_durable_records

        count = self._last or 0
        last = []
        for stream in self._existing():
            with _absent_is_empty():
                readers[stream], records = last_durable_records(
                    self.data, stream, count, self._chosen, report, self._times
                )
                last.append(records)
        return last_merged(last, count)

    def _records_in_range(
        self, readers: dict[str, StreamReader], report: Report, chosen: Filter
    ) -> Iterator[Sequence[Record]]:
        """The durable records since `since`, merged by time; adds readers as `_last_records`."""
        from logengine.reading.follower import durable_records_in

        found = []
        for stream in self._existing():
            with _absent_is_empty():
                readers[stream], blocks = durable_records_in(self.data, stream, self._times, report)
                found.append(_chosen_of(blocks, chosen))
        merged = merge_by_time(found)
        while records := list(islice(merged, BATCH_RECORDS)):
            yield records

    def _existing(self) -> Iterator[str]:
        for stream in list_streams(self.data) if self.data.is_dir() else []:
            if self._follows(stream):
                yield stream


@contextlib.contextmanager
def _absent_is_empty() -> Iterator[None]:
    """Ignores that a stream is not there: it was removed, or is being recreated."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _chosen_of(blocks: Iterable[Block], chosen: Filter) -> Iterator[Record]:
    with _absent_is_empty():
        for block in blocks:
            for part in chosen.choose(block):
                yield from part.records()


class _Stopped(Exception):
    """The pass is stopped: nothing takes what is read any more."""


class _Pass:
    """One pass: the request to stop it, and what its thread hands over, if it has one.

    `SimpleQueue.put` may be called in a signal handler, whatever that interrupted; locks may not.
    """

    def __init__(self) -> None:
        self.is_stopped = False
        self._process = os.getpid()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiting: asyncio.Timeout | None = None
        self._items: SimpleQueue[Block | Sequence[Record] | Problem | None] = SimpleQueue()
        self._places: SimpleQueue[None] = SimpleQueue()
        self._error: BaseException | None = None
        for _ in range(_AHEAD_MAX):
            self._places.put(None)

    def put(self, item: Block | Sequence[Record] | Problem) -> None:
        """Hands over `item` once there is a place for it. Raises `_Stopped`."""
        self._places.get()
        if self.is_stopped:
            raise _Stopped
        self._items.put(item)

    def end(self, error: BaseException | None) -> None:
        """Marks the end, with the error that caused it, if there is one."""
        self._error = error
        self._items.put(None)

    def take(self) -> Block | Sequence[Record] | Problem | None:
        """The next item; None at the end. Raises the error that ended the pass.

        Raises `LogEngineError` in a process that was forked meanwhile.
        """
        if not self.is_stopped and os.getpid() != self._process:
            raise begun_before_fork()
        item = None if self.is_stopped else self._items.get()
        if self.is_stopped:
            return None
        if item is not None:
            self._places.put(None)
        elif self._error is not None:
            raise self._error
        return item

    def stop(self) -> None:
        """Ends the waits of both sides."""
        self.is_stopped = True
        if os.getpid() != self._process:
            return  # the thread belongs to the parent, and so does the socket that would wake it
        self._items.put(None)
        self._places.put(None)
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self._stop_waiting)

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            with contextlib.suppress(RuntimeError):  # the wait is already over
                self.waiting.reschedule(0)
