"""Group commit: gathers what arrived, commits it as one batch, and notifies the senders.

If somebody waits for an entry, a batch starts as soon as its predecessor permits. Otherwise it
starts after a pause, so that commits take only a small part of the time. A batch contains
whatever arrived meanwhile: one record at idle, megabytes under load. While a batch is in fsync and
enough has arrived (`pipeline_bytes`), the next one is prepared; at most three are under way. For
each of its streams, a batch waits for the last earlier batch that contains the stream, however far
back that is. Entries planned on a batch that then fails return to the queue too, in order.

Users with much pending are committed apart from those with little (`lanes`), so that nobody's one
record waits for another user's megabytes.

A failing stream keeps its records and retries after a pause that doubles, in a batch of failing
streams only. The other streams neither wait for it nor fail with it. A stream that may drop its
oldest segments on a full disk does so before it retries.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from logengine.errors import OutdatedPlan
from logengine.format.producers import Producer
from logengine.protocols.status import FailingStream
from logengine.store.lanes import Lane, lane_of, large_users, may_start, streams_max
from logengine.store.pending import Barrier, Entry, Pending, Sender, addition_of
from logengine.store.plan import PlannedSegment
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.store.stream_events import (
    report_failure,
    report_recovery,
    report_success,
    report_unread,
)
from logengine.store.stream_locks import StreamLocks

log = structlog.get_logger()

# Commits that nobody waits for take at most about a twentieth of the time.
_PAUSE_PER_COMMIT = 20
_IN_LOOP_BYTES_MAX = 16 * 1024
# A commit also writes the active segment and a header of a thousand producers; this is more.
_ROOM_MARGIN_BYTES = 256 * 1024


@dataclass
class Totals:
    """Counters since the start."""

    records: int = 0
    bytes: int = 0
    batches: int = 0
    failures: int = 0
    dropped_records: int = 0  # stored records dropped as the oldest of a stream on a full disk


@dataclass(eq=False)
class _Batch:
    taken: Mapping[str, list[Entry]]
    planned: Mapping[str, PlannedSegment]
    done: asyncio.Future[None]  # its senders are notified, or its entries are queued again
    lane: Lane | None  # None if it contains failing streams only, and retries them
    is_beside_large: bool


class Committer:
    """Accepts entries and makes them durable, in order within each stream.

    Runs on one event loop, with its tasks in `tasks`. No call here blocks the loop, except a
    commit of a single small entry on a quick disk (`in_loop_below`). `on_room` is called when
    pending bytes decrease or a failed stream works again; `on_failing` when a stream fails or
    works again. On a full disk, the oldest segments of streams for which `drops_oldest` is true
    are removed. `counts_users` stores each user's bytes in the streams.
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
        self._under_way: list[_Batch] = []  # in start order
        self._tasks: set[asyncio.Task[None]] = set()  # this committer's tasks in the group
        self._timers: set[asyncio.TimerHandle] = set()
        self._stream_locks = StreamLocks(self._is_busy, self.commit_now)
        self._pump_due = False
        self._is_asked = False  # somebody waits for an entry that is in no batch yet
        self._hurries = False
        self._next_s = 0.0  # when the next batch starts that nobody waits for, by the loop's clock
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._dropped = 0
        self.commit_s = math.inf  # how long the last commit took
        self._idle = asyncio.Event()
        self._idle.set()
        self.pending_bytes = 0
        self._bytes_of_uids: dict[int, int] = {}  # the same, of each user
        self._waiting_bytes = 0  # the pending bytes that are in no batch yet
        self.totals = Totals()
        # Whether a producer of a stream has a connection: its number is not forgotten then.
        self.is_connected: Callable[[str, Producer], bool] = lambda *_: False

    def add(self, stream: str, entry: Entry, *, is_awaited: bool = True) -> None:
        """Queues `entry`; notifies its sender once it is durable.

        If nobody waits for it, it is committed within `linger`, plus the commit itself.
        """
        pending = self._pending.get(stream)
        if pending is None:
            pending = self._pending[stream] = Pending()
        pending.entries.append(entry)
        size = len(entry.body)
        pending.bytes += size
        self.pending_bytes += size
        self._waiting_bytes += size
        if size:
            uid = entry.sender.uid
            self._bytes_of_uids[uid] = self._bytes_of_uids.get(uid, 0) + size
        self._idle.clear()
        if is_awaited:
            self.commit_now()
        elif self._pump_due:
            pass  # it is taken with what was queued before it
        elif self._is_due(self._loop.time()):
            self._pump_soon()
        else:
            self._pump_after_pause()

    def commit_now(self) -> None:
        """Starts a batch of everything that waits as soon as possible: somebody waits for it."""
        self._is_asked = True
        self._pump_soon()

    def hurry(self) -> None:
        """Makes no pauses any more. For use at a stop."""
        self._hurries = True
        self._pump_soon()

    def recover(self, failed: Mapping[str, OSError]) -> None:
        """Schedules recovery of the streams that failed it when the data directory was opened.

        `failed` has the reasons. Each stream is retried after pauses that double, whether or not
        anything is sent to it.
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
        """Forgets a stream that has nothing to commit and needs no recovery."""
        if not pending.is_empty or pending.wants_recovery or pending.recovering:
            return
        self._cancel_retry(pending)
        self._failing.discard(stream)
        del self._pending[stream]

    async def barrier(self, stream: str) -> None:
        """Returns when everything previously added to `stream` is durable."""
        pending = self._pending.get(stream)
        last = pending.entries[-1].sender if pending and pending.entries else None
        if isinstance(last, Barrier):
            barrier = last  # shared, so that many waiters at one place do not grow the queue
        else:
            barrier = Barrier()
            self.add(stream, Entry(b"", 0, "", 0, barrier))
        await barrier.wait()

    def has_room(self, stream: str, pending_max: int) -> bool:
        """Whether `stream` is not failing and has fewer than `pending_max` bytes waiting."""
        pending = self._pending.get(stream)
        return pending is None or (not pending.attempts and pending.bytes < pending_max)

    def has_room_everywhere(self, pending_max: int) -> bool:
        """Whether each stream has room. O(streams for which something waits)."""
        return all(self.has_room(stream, pending_max) for stream in self._pending)

    def is_waiting(self, stream: str) -> bool:
        """Whether something waits to be committed to `stream`, or the stream to be recovered."""
        return stream in self._pending

    def bytes_of_uid(self, uid: int) -> int:
        """The bytes that a user sent and that are not durable yet."""
        return self._bytes_of_uids.get(uid, 0)

    @property
    def uids(self) -> Collection[int]:
        """The users of whom something is not durable yet."""
        return self._bytes_of_uids.keys()

    def bytes_waiting(self, stream: str) -> int:
        """The bytes added to `stream` that are not durable yet."""
        pending = self._pending.get(stream)
        return pending.bytes if pending else 0

    def failing(self) -> list[FailingStream]:
        """The streams that cannot be committed now, and why, sorted by name."""
        now_s = self._loop.time()
        return [self._pending[stream].failing(stream, now_s) for stream in sorted(self._failing)]

    def failing_bytes(self) -> int:
        """The bytes waiting in streams that cannot be committed now. O(failing streams)."""
        return sum(self._pending[stream].bytes for stream in self._failing)

    def lacks_space(self) -> bool:
        """Whether a stream fails because the disk or the disk quota is full."""
        return any(self._pending[stream].lacks_space for stream in self._failing)

    def forget_producers(self) -> None:
        """Drops the unacknowledged entries of named producers; they send them again.

        For use after the data directory was replaced, while no batch is under way. Entries of
        other senders stay, in order.
        """
        for pending in self._pending.values():
            self._waiting_bytes -= self._no_longer_pending(pending, pending.drop_producers())

    def _no_longer_pending(self, pending: Pending, entries: Sequence[Entry]) -> int:
        """Takes `entries` out of all counts of pending bytes. Returns their bytes."""
        of_uids = self._bytes_of_uids
        total = 0
        for entry in entries:
            if size := len(entry.body):
                total += size
                uid = entry.sender.uid
                left = of_uids[uid] - size
                if left:
                    of_uids[uid] = left
                else:
                    del of_uids[uid]
        self.pending_bytes -= total
        pending.bytes -= total
        return total

    def retry_now(self) -> None:
        """Retries the streams that are backing off after a failure."""
        for stream, pending in list(self._pending.items()):
            if pending.retry is not None:
                self._cancel_retry(pending)
                self._retry(stream, pending)

    def held(self, stream: str) -> AbstractAsyncContextManager[None]:
        """Inside the block, no commit touches the directory of `stream`; its senders wait.

        For other code that changes names there, such as the drop of the oldest segments on a full
        disk: a failed sync may lose a name that another task has just made, and that task's own
        sync, a moment later, would not report it. One holder at a time; others wait.
        """
        return self._stream_locks.hold(stream)

    def _is_busy(self, stream: str) -> bool:
        pending = self._pending.get(stream)
        return pending is not None and pending.is_busy

    @property
    def commits_small(self) -> bool:
        """Whether a batch of users with little pending is under way."""
        return any(batch.lane is Lane.SMALL for batch in self._under_way)

    @property
    def is_idle(self) -> bool:
        """Whether everything added is durable."""
        return self._idle.is_set()

    async def drained(self) -> None:
        """Returns when everything added is durable, including what is added meanwhile."""
        await self._idle.wait()

    async def close(self) -> int:
        """Waits for the batches under way; drops the entries in no batch, unacknowledged.

        Returns the number of records dropped.
        """
        for pending in self._pending.values():
            self._dropped += pending.drop()
        for timer in self._timers:
            timer.cancel()
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        return self._dropped

    def _pump_soon(self) -> None:
        if self._pump_due:
            return
        self._pump_due = True
        # Not immediately: other sockets that are ready to be read belong to the same batch.
        self._loop.call_soon(self._pump)

    def _pump_after_pause(self) -> None:
        if self._pump_due or self._pause is not None:
            return
        self._pause = self._later(max(0.0, self._next_s - self._loop.time()), self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        self._pump()

    def _pump(self) -> None:
        self._pump_due = False
        if self._closed:
            return
        if self._failing and self._may_retry() and (taken := self._take(None)):
            self._start(taken, None, is_awaited=True)
        # Read once: if the pause ended between two looks, neither would start what waits.
        now_s, is_awaited = self._loop.time(), self._is_asked or self._hurries
        for lane in Lane:
            while self._may_start(lane, now_s) and (taken := self._take(lane)):
                self._start(taken, lane, is_awaited=is_awaited)
        if not self._is_due(now_s) and any(each.entries for each in self._pending.values()):
            self._pump_after_pause()
        # A stream that only awaits recovery does not prevent idle.
        if not self._under_way and all(each.is_empty for each in self._pending.values()):
            self._idle.set()

    def _may_retry(self) -> bool:
        return not any(batch.lane is None for batch in self._under_way)

    def _may_start(self, lane: Lane, now_s: float) -> bool:
        return may_start(
            sum(batch.lane is lane for batch in self._under_way),
            sum(batch.lane not in (lane, None) for batch in self._under_way),
            is_due=self._is_due(now_s),
            is_enough=self._waiting_bytes >= self._config.pipeline_bytes,
            is_shared=self._is_shared,
        )

    def _is_due(self, now_s: float) -> bool:
        """Whether a batch starts now if there is none of its lane under way."""
        return (
            self._is_asked
            or self._hurries
            or self._waiting_bytes >= self._config.pipeline_bytes
            or now_s >= self._next_s
        )

    @property
    def _is_shared(self) -> bool:
        """Whether several users have something that is not durable yet."""
        return len(self._bytes_of_uids) > 1

    def _take(self, lane: Lane | None) -> dict[str, list[Entry]]:
        """The next batch: the waiting entries of each eligible stream, up to `max_batch` in all.

        Has up to `streams_max` streams.

        Only streams of `lane` are eligible, or if that is None, the failing ones.
        """
        taken: dict[str, list[Entry]] = {}
        room = self._config.max_batch
        most_streams = streams_max(lane, is_shared=self._is_shared)
        is_in_lane = self._lane_rule(lane) if lane else None
        leaves_some = False
        for stream, pending in list(self._pending.items()):
            if room <= 0:
                break
            if (stream in self._failing) is not (lane is None):
                continue
            is_waiting = pending.resting or pending.recovering or self._stream_locks.is_held(stream)
            if is_waiting or not (pending.entries or pending.wants_recovery):
                continue
            if not self._store.is_ready(stream):
                self._recover(stream, pending)
                continue
            if not pending.entries:
                continue
            if is_in_lane and not is_in_lane(stream, pending):
                leaves_some = True
                continue
            if len(taken) >= most_streams:
                leaves_some = True
                break
            taken[stream], taken_bytes = pending.take(room)
            room -= taken_bytes
            # Move the stream to the end, so that full batches starve no stream.
            del self._pending[stream]
            self._pending[stream] = pending
        self._waiting_bytes -= self._config.max_batch - room
        if room > 0 and lane and not leaves_some:
            self._is_asked = False
        return taken

    def _lane_rule(self, lane: Lane) -> Callable[[str, Pending], bool]:
        """Returns what decides whether a stream with waiting entries is in `lane` now."""
        large = large_users(
            self._bytes_of_uids,
            self._owners,
            len(self._pending),
            max_batch=self._config.max_batch,
        )
        before = [batch.taken for batch in self._under_way if batch.lane is Lane.LARGE]

        def is_in_lane(stream: str, pending: Pending) -> bool:
            follows_large = any(stream in taken for taken in before)
            uids = (entry.sender.uid for entry in pending.entries)
            return lane_of(uids, large, follows_large=follows_large) is lane

        return is_in_lane

    def _owners(self) -> Iterator[int]:
        """Yields a user for each stream in which something waits: the one who waits longest."""
        for pending in self._pending.values():
            if pending.entries:
                yield pending.entries[0].sender.uid

    def _start(
        self, taken: Mapping[str, list[Entry]], lane: Lane | None, *, is_awaited: bool
    ) -> None:
        planned = {
            stream: self._store.plan(
                stream,
                addition_of(entries, counts_users=self._counts_users),
                partial(self._is_in_use, stream),
            )
            for stream, entries in taken.items()
        }
        before = self._last_under_way(taken)
        is_beside_large = lane is Lane.SMALL and any(
            batch.lane is Lane.LARGE for batch in self._under_way
        )
        batch = _Batch(taken, planned, self._loop.create_future(), lane, is_beside_large)
        is_only = not self._under_way and lane is not None
        in_loop = is_only and self._may_wait_for(batch, is_awaited=is_awaited)
        self._under_way.append(batch)
        if not (in_loop and self._has_committed(batch)):
            self._spawn(self._commit(batch, before, in_loop=in_loop))

    def _has_committed(self, batch: _Batch) -> bool:
        """Commits a small batch without a task. Returns False if it takes more."""
        began_s = time.perf_counter()
        try:
            failed = self._store.commit_alone(batch.planned)
            if failed is None:
                return False
            self._finish(batch, failed, time.perf_counter() - began_s)
        except Exception as error:  # noqa: BLE001 - raised in the task group, as from `_commit`
            self._spawn(_raise(error))
        return True

    def _is_in_use(self, stream: str, producer: Producer) -> bool:
        return self.is_connected(stream, producer) or self._pending[stream].has_records_of(producer)

    def _last_under_way(self, streams: Collection[str]) -> list[asyncio.Future[None]]:
        """What a batch of `streams` depends on: the last batch that contains each stream."""
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
        failed = await self._store.commit(
            batch.planned, before, in_loop=in_loop, beside_large=batch.is_beside_large
        )
        self._finish(batch, failed, time.perf_counter() - began)

    def _finish(self, batch: _Batch, failed: Mapping[str, Exception], took_s: float) -> None:
        self.commit_s = took_s
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
            if not (batch.lane is Lane.LARGE and self._is_shared):
                pause_s = min(self._config.linger, _PAUSE_PER_COMMIT * took_s)
                self._next_s = self._loop.time() + pause_s
        batch.done.set_result(None)
        self._pump()
        self._on_room()

    def _may_wait_for(self, batch: _Batch, *, is_awaited: bool) -> bool:
        """Whether the event loop commits `batch` itself instead of using a thread.

        This acknowledges a single record at idle a third sooner. The loop blocks meanwhile, so
        the previous commit must have been quick. If somebody waits, a chunk of many records goes to
        a thread: more will have arrived after it. If nobody does, they wait for the next commit
        anyway, and a thread would compete with the loop for the interpreter.
        """
        is_slow = self.commit_s >= self._config.in_loop_below
        if is_slow or self._waiting_bytes or len(batch.taken) > 1:
            return False
        (entries,) = batch.taken.values()
        if len(entries) > 1 and is_awaited:
            return False
        return sum(len(entry.body) for entry in entries) <= _IN_LOOP_BYTES_MAX

    def _succeeded(self, stream: str, entries: list[Entry]) -> None:
        pending = self._pending[stream]
        latest: dict[Sender, int] = {}
        for entry in entries:
            latest[entry.sender] = entry.number
            self.totals.records += entry.count
        self.totals.bytes += self._no_longer_pending(pending, entries)
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
        # A batch planned on a failed one returns its entries without counting a failure.
        if not (pending.has_failed and isinstance(error, OutdatedPlan)):
            self._note_failure(stream, pending, error)
        if self._closed:
            self._dropped += pending.drop()
        elif not pending.under_way:
            self._waiting_bytes += waiting_bytes
            self._rest(stream, pending)

    def _note_failure(self, stream: str, pending: Pending, error: Exception) -> None:
        """Counts a failure. Logs it as an error only if the reason changed."""
        self.totals.failures += 1
        self._failing.add(stream)
        is_news = pending.failed(error, self._loop.time())
        report_failure(
            stream, pending, error, is_news=is_news, pause_s=self._pause_s(pending.attempts)
        )
        self._on_failing()

    def _pause_s(self, attempts: int) -> float:
        """How long a stream backs off after `attempts` failed attempts in a row."""
        doubled_s = self._config.retry_min * 2.0 ** min(attempts - 1, 30)
        return min(self._config.retry_max, doubled_s)

    def _rest(self, stream: str, pending: Pending) -> None:
        """Schedules the retry of a failed stream that has no batch under way."""
        pending.has_failed = False
        pause_s = self._pause_s(pending.attempts)
        if pending.lacks_space and self._drops_oldest(stream) and not self._closed:
            self._spawn(self._make_room(stream, pending, pause_s))
        else:
            self._retry_later(stream, pending, pause_s)

    async def _make_room(self, stream: str, pending: Pending, pause_s: float) -> None:
        """Drops enough of the stream's oldest segments for the waiting entries, then retries."""
        try:
            dropped = await self.make_room(stream, pending.bytes + _ROOM_MARGIN_BYTES)
        except Exception as error:  # noqa: BLE001 - any error is retried
            log.error("oldest_segments_not_dropped", stream=stream, error=str(error))
            dropped = 0
        # Retry immediately only the first time: if another program takes the freed space, or
        # space is not what is short, years of history must not vanish within a second.
        self._retry_later(stream, pending, 0 if dropped and pending.attempts == 1 else pause_s)

    async def make_room(self, stream: str, wanted_bytes: int) -> int:
        """Drops the oldest segments of a stream to free `wanted_bytes`; returns the bytes freed.

        Raises `OSError`.
        """
        # A compaction that wants to replace some of them waits, and then finds them gone.
        async with self.held(stream):
            if self._closed:
                return 0
            dropped = await self._store.drop_oldest(stream, wanted_bytes)
        if dropped:
            self.totals.dropped_records += sum(segment.count for segment in dropped)
            await report_unread(self._store.data, stream, dropped)
        return sum(segment.disk_bytes for segment in dropped)

    def _retry_later(self, stream: str, pending: Pending, delay_s: float) -> None:
        self._cancel_retry(pending)
        if not self._closed:
            pending.retry = self._later(delay_s, self._retry, stream, pending)

    def _cancel_retry(self, pending: Pending) -> None:
        if pending.retry is not None:
            pending.retry.cancel()
            self._timers.discard(pending.retry)
            pending.retry = None

    def _retry(self, stream: str, pending: Pending) -> None:
        pending.retry = None
        if self._pending.get(stream) is not pending:
            return  # it was forgotten while its oldest segments were dropped
        pending.resting = False
        if pending.is_empty and not pending.wants_recovery:
            # Nobody waits for what failed. The next entry will be the next attempt, and its sender
            # may be one that is not read while the stream is failing.
            self._nothing_waits(stream, pending)
        self._pump()

    def _nothing_waits(self, stream: str, pending: Pending) -> None:
        """Ends the failure of an empty stream; no commit follows that would report it."""
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
        except Exception as error:  # noqa: BLE001 - any error is retried
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
        self.commit_now()  # what waited for the recovery has waited for long enough

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


async def _raise(error: Exception) -> None:
    raise error
