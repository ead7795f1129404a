"""Follows new records of a data directory, for a plain loop and for asyncio.

A plain loop must work inside a running event loop, as in a notebook. So a thread with its own event
loop waits for records. It reads at most a few blocks ahead.
"""

import contextlib
import errno
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from logengine.disk.segment_file import list_streams
from logengine.errors import InvalidOption
from logengine.format.block import Block, Record
from logengine.format.segment import SEQ_MAX
from logengine.reading.batch import Batch, PendingGaps
from logengine.reading.filter import Filter, Patterns
from logengine.reading.listing import AnyPath, check_stream_names, data_directory
from logengine.reading.problem import Problem, Report, raise_or_warn
from logengine.reading.read_ahead import begun_before_fork
from logengine.reading.read_records import Cursors, check_cursors, last_merged, parse_cursors
from logengine.reading.reader import StreamReader

if TYPE_CHECKING:
    import asyncio

# Limit of what the thread has read and the loop has not taken: blocks, which are a few MiB at most,
# and problems.
_AHEAD_MAX = 4


def follow(
    *streams: str,
    data: AnyPath | None = None,
    after: Cursors = (),
    last: int = 0,
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
    `last`: starts with the last existing records, at most this many.
    `after`: starts after these cursors, and reads a stream without a cursor from its start. Without
    `streams`, only streams with a cursor are followed.
    `timeout_s`: ends after this many seconds; without it, only `stop` ends it.
    Everything else is as for `read`.

    Raises `InvalidStreamName`, `InvalidCursor`, `InvalidFilter`, `InvalidOption`.
    """
    cursors = parse_cursors(after)
    check_stream_names(streams)
    if streams and cursors:
        check_cursors(cursors, streams)
    if last < 0:
        raise InvalidOption(f"last is {last}; expected a number of records, 0 or more")
    if last and cursors:
        raise InvalidOption("last and after both set the start; give only one of them")
    return Following(
        data_directory(data).absolute(),
        tuple(streams or cursors) or None,
        cursors,
        min(last, SEQ_MAX),
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
        last: int,
        chosen: Filter,
        timeout_s: float | None,
        on_problem: Report,
    ) -> None:
        self.data = data
        self.streams = streams
        self._after = after
        self._last = last
        self._chosen = chosen
        self._timeout_s = timeout_s
        self._on_problem = on_problem
        self._is_stopped = False
        self._passes: set[_Pass] = set()
        # What `last` made a pass begin after, known once the last existing records were taken.
        self.began_after: Mapping[str, int] = {}

    def continue_after(self, positions: Mapping[str, int]) -> None:
        """Makes the next pass begin after these numbers of the streams that are followed.

        If there are any, `last` has no effect, and other streams are read from their start.
        """
        self._after = {name: seq for name, seq in positions.items() if self._follows(name)}

    def _follows(self, stream: str) -> bool:
        return self.streams is None or stream in self.streams

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
        import asyncio

        async def hand_over() -> None:
            async for chunk in self._until_stopped(current, current.put):
                current.put(chunk)

        try:
            asyncio.run(hand_over())
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the loop of the pass
            current.end(error)
        else:
            current.end(None)

    async def _until_stopped(
        self, current: "_Pass", report: Report
    ) -> AsyncGenerator[Block | Sequence[Record], None]:
        """The records, until the pass is stopped or its time is over."""
        import asyncio

        loop = asyncio.get_running_loop()
        deadline = None if self._timeout_s is None else loop.time() + self._timeout_s
        current.loop = loop
        async with contextlib.aclosing(self._chunks(report)) as chunks:
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

    async def _chunks(self, report: Report) -> AsyncGenerator[Block | Sequence[Record], None]:
        # This imports asyncio; a command that only reads starts faster without it.
        from logengine.reading.follower import Follower

        readers = {
            stream: StreamReader(self.data, stream, report, seq + 1, reports_removed=True)
            for stream, seq in self._after.items()
        }
        if not self._after:
            last = self._last_records(readers, report)
            began_after = {stream: reader.next_seq - 1 for stream, reader in readers.items()}
            if last:
                yield last
            self.began_after = began_after
        async for block in Follower(self.data, self.streams, readers, report).blocks():
            for part in self._chosen.choose(block):
                yield part

    def _last_records(self, readers: dict[str, StreamReader], report: Report) -> list[Record]:
        """The last durable records of the existing streams; adds readers that continue after them.

        A stream without a reader is new as a whole when it appears.
        """
        from logengine.reading.follower import last_durable_records

        last = []
        for stream in list_streams(self.data) if self.data.is_dir() else []:
            if not self._follows(stream):
                continue
            try:
                readers[stream], records = last_durable_records(
                    self.data, stream, self._last, self._chosen, report
                )
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                last.append(records)
        return last_merged(last, self._last)


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
