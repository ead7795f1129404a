"""Group commit: gathers what arrived, commits it as one batch, and tells the senders.

A batch starts as soon as the one before lets it, and holds whatever arrived meanwhile:
one record at idle, megabytes under load. While a batch is in fsync and enough has
arrived (`pipeline_bytes`), the next one is prepared already; three are under way at most.
A batch waits, stream by stream, for the last batch before it that holds the stream, however
far back that is. What was planned on a batch that then failed comes back too, in order.

A stream that fails keeps its records and tries again after a pause that doubles, in a batch
that holds failing streams only: the others neither wait for it nor share its fate. One that
may drop its oldest segments on a full disk does so before it tries again.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import structlog

from logengine.errors import OutdatedPlan
from logengine.protocols.status import FailingStream
from logengine.store.pending import Barrier, Entry, Pending, Sender, addition_of
from logengine.store.plan import PlannedSegment
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.store.stream_events import (
    report_dropped,
    report_failure,
    report_recovery,
    report_success,
)
from logengine.store.stream_locks import StreamLocks

log = structlog.get_logger()

_BATCHES_UNDER_WAY_MAX = 3
_IN_LOOP_BYTES_MAX = 16 * 1024
# More than the active segment and a header of a thousand producers, which a commit writes too.
_ROOM_MARGIN_BYTES = 256 * 1024


@dataclass
class Totals:
    """What was committed since the start."""

    records: int = 0
    bytes: int = 0
    batches: int = 0
    failures: int = 0
    dropped_records: int = 0  # stored ones, whose stream drops its oldest on a full disk


@dataclass(eq=False)
class _Batch:
    taken: Mapping[str, list[Entry]]
    planned: Mapping[str, PlannedSegment]
    done: asyncio.Future[None]  # its senders were told, or its entries are in the queue again
    retries: bool  # it holds failing streams, and nothing else


class Committer:
    """Takes entries, makes them durable in order, stream by stream.

    Runs on one event loop, which no call here blocks, with its tasks in `tasks`. `on_room`
    is called whenever pending bytes have become fewer, or a stream that failed goes again;
    `on_failing` whenever a stream failed, or goes again. Of a stream for which `drops_oldest`
    holds, a full disk takes the oldest segments. `counts_users` has the bytes of each user noted
    in the streams.
    """

    def __init__(
        self,
        store: Store,
        config: CommitConfig,
        tasks: asyncio.TaskGroup,
        *,
        drops_oldest: Callable[[str], bool] = lambda _: False,
        counts_users: bool = False,
        on_room: Callable[[], None] = lambda: None,
        on_failing: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._drops_oldest = drops_oldest
        self._counts_users = counts_users
        self._config = config
        self._task_group = tasks
        self._on_room = on_room
        self._on_failing = on_failing
        self._loop = asyncio.get_running_loop()
        self._pending: dict[str, Pending] = {}
        self._failing: set[str] = set()
        self._under_way: list[_Batch] = []  # in the order of their start
        self._tasks: set[asyncio.Task[None]] = set()  # of the group, those of this committer
        self._timers: set[asyncio.TimerHandle] = set()
        self._stream_locks = StreamLocks(self._is_busy, lambda: self._pump_soon(0))
        self._pump_due = False
        self._closed = False
        self._dropped = 0
        self._was_quick = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.pending_bytes = 0
        self._waiting_bytes = 0  # of pending bytes, those in no batch yet
        self.totals = Totals()

    def add(self, stream: str, entry: Entry) -> None:
        """Queues `entry`; its sender hears of it once it is durable."""
        pending = self._pending.get(stream)
        if pending is None:
            pending = self._pending[stream] = Pending()
        pending.entries.append(entry)
        size = len(entry.body)
        pending.bytes += size
        self.pending_bytes += size
        self._waiting_bytes += size
        self._idle.clear()
        self._pump_soon(self._config.linger)

    def recover(self, failed: Mapping[str, OSError]) -> None:
        """Has streams recovered that could not be when the data directory was opened, and why.

        Each is tried again after pauses that double, whether anybody sends to it or not.
        """
        for stream, pending in list(self._pending.items()):
            if stream not in failed:
                pending.wants_recovery = False
                self._perhaps_forget(stream, pending)
        for stream, error in failed.items():
            pending = self._pending.setdefault(stream, Pending())
            pending.wants_recovery = True
            if not (pending.resting or pending.is_busy):
                self._note_failure(stream, pending, error)
                self._rest(stream, pending)

    def _perhaps_forget(self, stream: str, pending: Pending) -> None:
        """Lets go of a stream that nothing is to be done for."""
        if not pending.is_empty or pending.wants_recovery or pending.recovering:
            return
        if pending.retry is not None:
            pending.retry.cancel()
            self._timers.discard(pending.retry)
        self._failing.discard(stream)
        del self._pending[stream]

    async def barrier(self, stream: str) -> None:
        """Returns when all that was added to `stream` before is durable."""
        pending = self._pending.get(stream)
        last = pending.entries[-1].sender if pending and pending.entries else None
        if isinstance(last, Barrier):
            barrier = last  # many wait at one place: their number must not grow the queue
        else:
            barrier = Barrier()
            self.add(stream, Entry(b"", 0, "", 0, barrier))
        await barrier.wait()

    def has_room(self, stream: str, pending_max: int) -> bool:
        """Whether `stream` does not fail, and has fewer than `pending_max` bytes waiting."""
        pending = self._pending.get(stream)
        return pending is None or (not pending.attempts and pending.bytes < pending_max)

    def bytes_waiting(self, stream: str) -> int:
        """What was added to `stream` and is not durable yet."""
        pending = self._pending.get(stream)
        return pending.bytes if pending else 0

    def failing(self) -> list[FailingStream]:
        """The streams that cannot be committed now, and why, in the order of their names."""
        now_s = self._loop.time()
        return [self._pending[stream].failing(stream, now_s) for stream in sorted(self._failing)]

    def failing_bytes(self) -> int:
        """What waits in the streams that cannot be committed now. O(those)."""
        return sum(self._pending[stream].bytes for stream in self._failing)

    def lacks_space(self) -> bool:
        """Whether a stream fails because the disk, or the quota on it, is full."""
        return any(self._pending[stream].lacks_space for stream in self._failing)

    def forget_producers(self) -> None:
        """Drops what named producers sent and no ack passed: they send it again.

        For a data directory that is another one now, while no batch is under way. What others
        sent stays, in order.
        """
        for pending in self._pending.values():
            size_bytes = pending.drop_producers()
            pending.bytes -= size_bytes
            self.pending_bytes -= size_bytes
            self._waiting_bytes -= size_bytes

    def retry_now(self) -> None:
        """Tries the streams again that rest after a failure."""
        for stream, pending in list(self._pending.items()):
            if pending.retry is not None:
                pending.retry.cancel()
                self._timers.discard(pending.retry)
                self._retry(stream, pending)

    def held(self, stream: str) -> AbstractAsyncContextManager[None]:
        """While inside, no commit touches the directory of `stream`; its senders wait.

        For whoever changes names there besides: a sync that fails may lose what somebody else
        has just renamed, and his own sync, a moment later, would not tell. One at a time:
        whoever comes second waits. A full disk's drop of the oldest is one of them.
        """
        return self._stream_locks.hold(stream)

    def _is_busy(self, stream: str) -> bool:
        pending = self._pending.get(stream)
        return pending is not None and pending.is_busy

    @property
    def is_idle(self) -> bool:
        """Whether all that was added is durable."""
        return self._idle.is_set()

    async def drained(self) -> None:
        """Returns when all that was added is durable, also what was added meanwhile."""
        await self._idle.wait()

    async def close(self) -> int:
        """Waits for the batches under way; drops, unacknowledged, what waits behind them.

        Gives the number of records dropped.
        """
        for pending in self._pending.values():
            self._dropped += pending.drop()
        for timer in self._timers:
            timer.cancel()
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        return self._dropped

    def _pump_soon(self, delay_s: float) -> None:
        if self._pump_due:
            return
        self._pump_due = True
        if delay_s > 0:
            self._later(delay_s, self._pump)
        else:
            # Not at once: what else is ready to be read belongs to the same batch.
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self._closed:
            return
        if self._failing and self._may_retry() and (taken := self._take(failing=True)):
            self._start(taken, retries=True)
        while self._may_start() and (taken := self._take(failing=False)):
            self._start(taken, retries=False)
        # A stream that is to be recovered and has nothing to commit keeps nobody waiting.
        if not self._under_way and all(each.is_empty for each in self._pending.values()):
            self._idle.set()

    def _may_retry(self) -> bool:
        return not any(batch.retries for batch in self._under_way)

    def _may_start(self) -> bool:
        under_way = sum(not batch.retries for batch in self._under_way)
        if not under_way:
            return True
        return (
            under_way < _BATCHES_UNDER_WAY_MAX
            and self._waiting_bytes >= self._config.pipeline_bytes
        )

    def _take(self, *, failing: bool) -> dict[str, list[Entry]]:
        """The next batch: of each stream that can go, what waits, up to `max_batch` in all."""
        taken: dict[str, list[Entry]] = {}
        room = self._config.max_batch
        for stream, pending in list(self._pending.items()):
            if room <= 0:
                break
            if (stream in self._failing) is not failing:
                continue
            is_waiting = pending.resting or pending.recovering or self._stream_locks.is_held(stream)
            if is_waiting or not (pending.entries or pending.wants_recovery):
                continue
            if not self._store.is_ready(stream):
                self._recover(stream, pending)
                continue
            if not pending.entries:
                continue
            taken[stream], taken_bytes = pending.take(room)
            room -= taken_bytes
            # Whoever was served goes to the end, so that a full batch starves nobody.
            del self._pending[stream]
            self._pending[stream] = pending
        self._waiting_bytes -= self._config.max_batch - room
        return taken

    def _start(self, taken: Mapping[str, list[Entry]], *, retries: bool) -> None:
        planned = {
            stream: self._store.plan(stream, addition_of(entries, counts_users=self._counts_users))
            for stream, entries in taken.items()
        }
        before = self._last_under_way(taken)
        batch = _Batch(taken, planned, self._loop.create_future(), retries)
        in_loop = not (self._under_way or retries) and self._may_wait_for(batch)
        self._under_way.append(batch)
        self._spawn(self._commit(batch, before, in_loop=in_loop))

    def _last_under_way(self, streams: Collection[str]) -> list[asyncio.Future[None]]:
        """What a batch of `streams` depends on: of each stream the last batch that holds it."""
        last = {
            stream: batch.done
            for batch in self._under_way
            for stream in streams
            if stream in batch.taken
        }
        return list(dict.fromkeys(last.values()))

    async def _commit(
        self, batch: _Batch, before: Collection[asyncio.Future[None]], *, in_loop: bool
    ) -> None:
        began = time.perf_counter()
        failed = await self._store.commit(batch.planned, before, in_loop=in_loop)
        self._was_quick = time.perf_counter() - began < self._config.in_loop_below
        self._under_way.remove(batch)
        for stream, entries in batch.taken.items():
            error = failed.get(stream)
            if error is None:
                self._succeeded(stream, entries)
            else:
                self._failed(stream, entries, error)
        self._stream_locks.let_through(batch.taken)
        if any(planned.plan for planned in batch.planned.values()):
            self.totals.batches += 1
        batch.done.set_result(None)
        self._pump()
        self._on_room()

    def _may_wait_for(self, batch: _Batch) -> bool:
        """Whether the event loop has nothing better to do than to commit `batch` itself.

        A single record at idle is acknowledged a third sooner than by way of a thread. The
        loop stands still meanwhile, so it is done only on a disk that was quick the last time,
        and not for a chunk of many records, behind which more will have arrived.
        """
        if not self._was_quick or self._waiting_bytes or len(batch.taken) > 1:
            return False
        (entries,) = batch.taken.values()
        return len(entries) == 1 and len(entries[0].body) <= _IN_LOOP_BYTES_MAX

    def _succeeded(self, stream: str, entries: list[Entry]) -> None:
        pending = self._pending[stream]
        latest: dict[Sender, int] = {}
        size = 0
        for entry in entries:
            latest[entry.sender] = entry.number
            size += len(entry.body)
            self.totals.records += entry.count
        self.totals.bytes += size
        self.pending_bytes -= size
        pending.bytes -= size
        pending.under_way -= 1
        assert not pending.returned, "what failed before it comes before it"
        goes_again = pending.attempts > 0
        if goes_again:
            self._goes_again(stream, pending)
        self._perhaps_forget(stream, pending)
        if goes_again:
            self._on_failing()
        for sender, number in latest.items():
            sender.durable(number)

    def _failed(self, stream: str, entries: list[Entry], error: Exception) -> None:
        pending = self._pending[stream]
        waiting_bytes = pending.give_back(entries)
        # What was planned on a batch that failed comes back without a failure of its own.
        if not (pending.has_failed and isinstance(error, OutdatedPlan)):
            self._note_failure(stream, pending, error)
        if self._closed:
            self._dropped += pending.drop()
        elif not pending.under_way:
            self._waiting_bytes += waiting_bytes
            self._rest(stream, pending)

    def _note_failure(self, stream: str, pending: Pending, error: Exception) -> None:
        """Counts a failure, and logs it once: again only where the reason is another."""
        self.totals.failures += 1
        self._failing.add(stream)
        is_news = pending.failed(error, self._loop.time())
        report_failure(
            stream, pending, error, is_news=is_news, pause_s=self._pause_s(pending.attempts)
        )
        self._on_failing()

    def _pause_s(self, attempts: int) -> float:
        """How long a stream rests after so many failed attempts in a row."""
        doubled_s = self._config.retry_min * 2.0 ** min(attempts - 1, 30)
        return min(self._config.retry_max, doubled_s)

    def _rest(self, stream: str, pending: Pending) -> None:
        """Has a stream that failed try again later; nothing of it is under way any more."""
        pending.has_failed = False
        pause_s = self._pause_s(pending.attempts)
        if pending.lacks_space and self._drops_oldest(stream) and not self._closed:
            self._spawn(self._make_room(stream, pending, pause_s))
        else:
            self._retry_later(stream, pending, pause_s)

    async def _make_room(self, stream: str, pending: Pending, pause_s: float) -> None:
        """Drops the stream's oldest segments, as many as what waits takes, and tries again."""
        try:
            # A compaction that is to replace some of them waits, and then finds them gone.
            async with self.held(stream):
                if self._closed:
                    return
                dropped = await self._store.drop_oldest(stream, pending.bytes + _ROOM_MARGIN_BYTES)
        except Exception as error:  # noqa: BLE001 - tried again, whatever it is
            log.error("oldest_segments_not_dropped", stream=stream, error=str(error))
            dropped = []
        if dropped:
            self.totals.dropped_records += sum(segment.count for segment in dropped)
            await report_dropped(self._store.data, stream, dropped)
        # At once only the first time: where somebody else takes what is freed, or it is not
        # space that is short, a history of years is not to be gone in a second.
        self._retry_later(stream, pending, 0 if dropped and pending.attempts == 1 else pause_s)

    def _retry_later(self, stream: str, pending: Pending, delay_s: float) -> None:
        if not self._closed:
            pending.retry = self._later(delay_s, self._retry, stream, pending)

    def _retry(self, stream: str, pending: Pending) -> None:
        pending.retry = None
        pending.resting = False
        if pending.is_empty and not pending.wants_recovery:
            # Nobody waits for what failed. The next entry is the next try, and its sender may be
            # one that is not read while the stream fails.
            self._nothing_waits(stream, pending)
        self._pump()

    def _nothing_waits(self, stream: str, pending: Pending) -> None:
        """No commit will say that a stream goes again."""
        if pending.attempts:
            self._goes_again(stream, pending)
        self._perhaps_forget(stream, pending)
        self._on_failing()
        self._on_room()

    def _goes_again(self, stream: str, pending: Pending) -> None:
        report_success(stream, pending, self._loop.time())
        pending.goes_again()
        self._failing.discard(stream)

    def _recover(self, stream: str, pending: Pending) -> None:
        pending.recovering = True
        self._spawn(self._recover_stream(stream, pending))

    async def _recover_stream(self, stream: str, pending: Pending) -> None:
        try:
            recovery = await self._store.recover_stream(stream)
        except Exception as error:  # noqa: BLE001 - tried again, whatever it is
            pending.recovering = False
            self._stream_locks.let_through({stream})
            if pending.wants_recovery:
                pending.drop_unwanted()
            self._note_failure(stream, pending, error)
            self._rest(stream, pending)
            self._pump()
            return
        pending.recovering = False
        pending.wants_recovery = False
        self._stream_locks.let_through({stream})
        report_recovery(stream, recovery)
        if pending.is_empty:
            self._nothing_waits(stream, pending)
        self._pump()

    def _later(
        self, delay_s: float, call: Callable[..., None], *arguments: Any
    ) -> asyncio.TimerHandle:
        def run() -> None:
            self._timers.discard(timer)
            call(*arguments)

        timer = self._loop.call_later(delay_s, run)
        self._timers.add(timer)
        return timer

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._task_group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
