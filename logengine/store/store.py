"""All streams of a data directory, under one lock, and the commit of a batch.

DATA/.lock      held by the one daemon of this directory
DATA/.running   exists until the daemon stops cleanly (`crash_mark`)
DATA/.durable/  how much of each stream is durable, for followers (`durable_mark`)
DATA/STREAM/    one directory per stream
"""

import asyncio
import contextlib
import errno
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog
from msgspec import UNSET, UnsetType

from logengine.disk.commit_way import CommitWay
from logengine.disk.crash_mark import read_boot_id
from logengine.disk.data_directory import create_data_directory
from logengine.disk.directory import Directory, create_directories
from logengine.disk.durable_mark import DurableMarks
from logengine.disk.durable_names import DurableNames
from logengine.disk.early_writer import EarlyWriter
from logengine.disk.file_system import commit_way_at, risks_at
from logengine.disk.one_flush import OneFlush
from logengine.errors import DataDirectoryUnseen, OutdatedPlan
from logengine.format.producers import Producer, is_followed_file, number_of
from logengine.format.user_bytes import Users
from logengine.store.drop_oldest import StoredSegment
from logengine.store.opening import OpenedData, open_data
from logengine.store.plan import Addition, PlannedSegment, SegmentPlan, StreamState, append
from logengine.store.publication import Publication, StreamCommit
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.stream import Recovery, SegmentWriter, drop_oldest
from logengine.store.stream_events import report_dropped, report_dropping
from logengine.store.writers_ahead import KEPT_S, WriterAhead, has_files_to_spare

log = structlog.get_logger()

Result = TypeVar("Result")
# The first pause before a mark that could not be written is tried again; the pause doubles.
_CATCH_UP_S = 0.1
_CATCH_UP_S_MAX = 5.0
# How many producers all streams together hold in memory, as a multiple of what one may have. Above
# this, a stream with more than a few remembers a new one only in place of another.
_FULL_STREAMS = 16
_FEW_PRODUCERS = 16
# With one flush, each file of a batch stays open while it waits for its publication, and six
# batches may be under way. A batch of more streams takes two flushes.
_HELD_OPEN_MAX = 4


class StoreObserver(Protocol):
    """An observer of a store's segments, such as a compactor."""

    def segment_committed(self, plan: SegmentPlan) -> None:
        """A segment is durable; called in commit order."""

    def oldest_dropped(self, stream: str) -> None:
        """Some of the oldest segments of a stream may have been removed."""

    def stream_forgotten(self, stream: str) -> None:
        """A stream without records is not known any more; it may be begun again."""


class Store:
    """The streams of a data directory. One daemon owns it; readers do not need it.

    Between `plan` and the end of its `commit`, the state of a stream runs ahead of the disk.
    Meanwhile the next batch can be planned and prepared. A plan carries the state that it was
    made on and is published only if that same state is durable by then. Whatever the caller gets
    wrong, no record is stored after a hole. A failed commit resets the state to the durable one;
    everything planned on top must be planned again.

    The store works in the directory that it opened. If the path no longer leads to that
    directory, nothing is committed; `unusable` contains the reason until `reopen` has recovered
    the directory that is there.
    """

    def __init__(
        self,
        data: Path,
        executor: Executor,
        commit: CommitConfig | None = None,
        limits: LimitsConfig | None = None,
        *,
        boot_id: str | None = None,
        small_executor: Executor | None = None,
    ) -> None:
        """`boot_id` overrides the kernel's identifier of this boot.

        `small_executor` has threads for commits that must not queue for those of `executor`.
        """
        self.path = data
        self._opened: OpenedData | None = None
        # Why no stream can be committed now.
        self.unusable: Exception | None = None
        # What is known to break the durability promise on this file system, one reason each.
        self.risks: Sequence[str] = ()
        self._commit_way = CommitWay(2, "no data directory is open")
        self._one_flush: OneFlush | None = None
        self._held_open_max = _HELD_OPEN_MAX if has_files_to_spare() else 1
        # Counts the directories opened: knowledge about one does not apply to the next.
        self.generation = 0
        # When the newest record arrived that a recovered stream had as the directory was opened.
        self.latest_found = ""
        self._boot_id = read_boot_id() if boot_id is None else boot_id
        self._executor = executor
        self._small_executor = small_executor or executor
        self._config = commit or CommitConfig()
        self._limits = limits or LimitsConfig()
        self._durable: dict[str, StreamState] = {}
        # Ordered by last use, for the cache of active segments.
        self._planned: OrderedDict[str, StreamState] = OrderedDict()
        self._active_bytes = 0
        self._producers = 0  # in all planned states
        # All streams that exist or were begun, including those that are not ready.
        self._admitted: set[str] = set()
        # Streams whose last commit failed: what it wrote may or may not be visible.
        self._uncertain: set[str] = set()
        # Number of unsettled plans per stream; while there are any, its states do not change.
        self._unsettled: Counter[str] = Counter()
        # One commit at a time makes directories of new streams.
        self._beginning = asyncio.Lock()
        # Commits that have not returned, or that raised: what they left is unknown.
        self._under_way = 0
        # Threads that are recovering a stream or dropping its segments.
        self._in_threads = 0
        self._left_alone: asyncio.Future[None] | None = None
        # Streams whose directory was removed from outside; the next commit makes it again.
        self._removed: set[str] = set()
        self._catching_up: asyncio.TimerHandle | None = None
        self._catch_up_s = _CATCH_UP_S
        # The last commit alone, until its mark is moved.
        self._unmarked: SegmentPlan | None = None
        self._dropping: asyncio.TimerHandle | None = None
        self._observer: StoreObserver | None = None
        self._seen_unusable = asyncio.Event()

    @contextlib.contextmanager
    def observed_by(self, observer: StoreObserver) -> Iterator[None]:
        """Reports to `observer` until the block ends. A store has at most one observer."""
        assert self._observer is None, "the store has an observer"
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    def open(self) -> dict[str, Recovery | OSError]:
        """Locks the data directory, makes it if necessary, and recovers every stream.

        Returns the result for each stream. For a stream that cannot be recovered now, the result
        is the error; recovery is retried when something is sent to the stream. Raises
        `DataDirectoryLocked` if another daemon has the directory, and `OSError`.
        """
        create_data_directory(self.path)
        return self._adopt_all(self._open_what_is_there())

    async def reopen(self) -> dict[str, Recovery | OSError] | None:
        """Locks and recovers the directory at the path now, and closes the previous one.

        Returns the result for each stream, or None if the path leads to the same directory again
        and nothing has to be recovered. Raises `DataDirectoryReplaced`, `DataDirectoryUnseen`,
        `DataDirectoryLocked` or `OSError` if nothing can be committed yet; `unusable` is then
        that error.
        """
        if self.unusable is None:
            return None
        await self._until_left_alone()
        self._move_mark()
        before = self._opened
        try:
            if before is not None:
                why = before.locked.why_not_in_place()
                if why is None:
                    self._use_again()
                    return None
                if isinstance(why, DataDirectoryUnseen):
                    raise why
            opened = await asyncio.to_thread(self._open_in_place_of, before)
        except Exception as error:
            self.unusable = error
            raise
        if before is not None:
            before.close(is_in_doubt=self._is_in_doubt(before))
        self._durable.clear()
        self._planned.clear()
        self._active_bytes = self._producers = 0
        self._admitted.clear()
        self._uncertain.clear()
        self._removed.clear()
        found = self._adopt_all(opened)
        self._use_again()
        return found

    def _use_again(self) -> None:
        self.unusable = None
        self._seen_unusable.clear()

    def _open_what_is_there(self) -> OpenedData:
        return open_data(
            self.path,
            self._executor,
            boot_id=self._boot_id,
            rewrite_limit=self._config.rewrite_limit,
            active_cache=self._limits.active_cache,
        )

    def _open_in_place_of(self, before: OpenedData | None) -> OpenedData:
        if before is not None:
            # Do not make a new directory where one is gone: it contained data, and the
            # administrator who removed it must decide what happens to it.
            if (gone := before.locked.why_gone()) is not None:
                raise gone
        else:
            create_data_directory(self.path)
        return self._open_what_is_there()

    async def _until_left_alone(self) -> None:
        """Returns when no commit and no thread uses the directory any more."""
        while self._unsettled.total() or self._in_threads:
            self._left_alone = asyncio.get_running_loop().create_future()
            await self._left_alone

    def _perhaps_left_alone(self) -> None:
        if self._left_alone is not None and not self._left_alone.done():
            self._left_alone.set_result(None)

    def _adopt_all(self, opened: OpenedData) -> dict[str, Recovery | OSError]:
        self._opened = opened
        self.risks = risks_at(opened.directory)
        self._one_flush = None
        self.look_at_file_system()
        self.generation += 1
        self._admitted.update(opened.recovered)
        for stream, found in opened.recovered.items():
            if not isinstance(found, OSError):
                self._adopt(stream, found)
        self.latest_found = max((state.latest for state in self._durable.values()), default="")
        return opened.recovered

    @property
    def commit_way(self) -> CommitWay:
        """How many flushes a commit takes, and why."""
        ruled_out = self._one_flush.ruled_out if self._one_flush is not None else None
        return self._commit_way if ruled_out is None else CommitWay(2, ruled_out)

    def look_at_file_system(self) -> None:
        """Decides how many flushes a commit takes, in case the file system was mounted again."""
        if self._opened is None:
            return
        if self._config.one_flush == "never":
            self._commit_way = CommitWay(2, "`commit.one_flush` is never")
            return
        self._commit_way = commit_way_at(self._opened.directory)
        if self._one_flush is None:
            self._one_flush = OneFlush(self._opened.directory)

    def _one_flush_of(self, stream: str) -> OneFlush | None:
        """Set if one flush is enough for a commit to the stream."""
        # After a failed sync of the stream, nothing is taken for granted in this boot.
        if self._commit_way.is_short and self.names.may_remove_from(stream):
            return self._one_flush
        return None

    @property
    def data(self) -> Directory:
        """The data directory that was last locked and recovered."""
        assert self._opened is not None, "the store is not open"
        return self._opened.directory

    @property
    def _marks(self) -> DurableMarks:
        assert self._opened is not None, "the store is not open"
        return self._opened.marks

    @property
    def is_open(self) -> bool:
        """Whether a data directory was locked and recovered."""
        return self._opened is not None

    @property
    def names(self) -> DurableNames:
        """The gate for every change of names in the streams' directories."""
        assert self._opened is not None, "the store is not open"
        return self._opened.crash_mark.names

    @property
    def unsynced(self) -> frozenset[str]:
        """The streams from which nothing more is removed until the next boot."""
        return self.names.unsynced if self._opened else frozenset()

    def close(self) -> None:
        """Unlocks the data directory, and records a clean stop if nothing is in doubt."""
        self._move_mark()
        opened, self._opened = self._opened, None
        for timer in (self._catching_up, self._dropping):
            if timer is not None:
                timer.cancel()
        self._dropping = None
        if opened is not None:
            opened.close(is_in_doubt=self._is_in_doubt(opened))
            opened.directory.close()

    def _is_in_doubt(self, opened: OpenedData) -> bool:
        are_all_known = self._admitted <= self._planned.keys()
        is_unknown = opened.crash_mark.died_before and not are_all_known
        return bool(self._under_way or self._uncertain or is_unknown)

    @property
    def streams(self) -> int:
        """The number of streams that exist or were begun."""
        return len(self._admitted)

    @property
    def known(self) -> frozenset[str]:
        """The names of the streams that exist, or were begun."""
        return frozenset(self._admitted)

    def is_known(self, stream: str) -> bool:
        """Whether `stream` exists, or was begun."""
        return stream in self._admitted

    def is_ready(self, stream: str) -> bool:
        """Whether `stream` is recovered or new, and can be committed to."""
        return stream in self._planned and self.unusable is None

    def not_recovered(self) -> dict[str, OSError]:
        """The streams that could not be recovered when the directory was opened, and why.

        Nothing is known about them: do not report on them, add to them or remove from them.
        """
        found = self._opened.recovered if self._opened is not None else {}
        return {
            stream: error
            for stream, error in found.items()
            if isinstance(error, OSError) and not self.may_be_trimmed(stream)
        }

    def may_be_trimmed(self, stream: str) -> bool:
        """Whether `stream` is not awaiting recovery."""
        if stream in self._durable or self._opened is None:
            return True
        return not isinstance(self._opened.recovered.get(stream), OSError)

    def has_records(self, stream: str) -> bool:
        """Whether `stream` is known to contain a durable record."""
        return stream in self._durable and self._durable[stream].next_seq > 1

    async def recover_stream(self, stream: str) -> Recovery:
        """Makes a stream ready: a new one, or one that could not be read at the start.

        A stream that is already known stays as it is. Raises `OSError`, and the error in
        `unusable`.
        """
        if self.unusable is not None:
            raise self.unusable
        assert self._opened is not None, "the store is not open"
        if (known := self._durable.get(stream)) is not None:
            # Only the directory was unusable for a while. Do not recover from disk: the remains
            # of a failed commit are visible and a new sync succeeds, so they would look durable.
            return Recovery(known)
        self._admitted.add(stream)
        recovery = await self._in_thread(
            self._opened.recover_late, stream, self._limits.active_cache - self._active_bytes
        )
        self.tell_followers()
        return self._adopt(stream, recovery)

    async def _in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        self._in_threads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, call, *arguments
            )
        finally:
            self._in_threads -= 1
            self._perhaps_left_alone()

    def forget_unused(self, stream: str) -> bool:
        """Forgets a stream that has no record, if nothing of it may be on disk.

        Returns whether it is not known any more. Only for a stream that nothing is queued for.
        """
        state = self._durable.get(stream)
        if state is None:
            return stream not in self._admitted
        was_there = self._opened is not None and stream in self._opened.recovered
        may_be_on_disk = state.next_seq > 1 or state.active or stream in self._uncertain
        if may_be_on_disk or was_there or self._unsettled[stream]:
            return False
        del self._durable[stream]
        del self._planned[stream]
        del self._unsettled[stream]
        self._removed.discard(stream)
        self._admitted.discard(stream)
        if self._observer is not None:
            self._observer.stream_forgotten(stream)
        return True

    async def drop_oldest(self, stream: str, wanted_bytes: int) -> list[StoredSegment]:
        """Removes the oldest segments of a stream to free `wanted_bytes`; returns those removed.

        Keeps the newest durable segment. Removes nothing if `stream` is not ready or is in
        `unsynced`. Logs what is removed, from the thread that removes it: nothing that happens to
        the caller can come between. The caller needs exclusive access to the stream's directory.
        Raises `OSError`.
        """
        state = self._durable.get(stream)
        if state is None or state.next_seq == 1:
            return []
        if self.unusable is not None or not self.names.may_remove_from(stream):
            return []
        data, names, next_seq = self.data, self.names, state.next_seq

        def drop() -> list[StoredSegment]:
            with data.subdirectory(stream) as directory:
                going = partial(report_dropping, stream)
                dropped = drop_oldest(directory, wanted_bytes, next_seq, names, going)
            if dropped:
                report_dropped(stream, dropped)
            return dropped

        try:
            return await self._in_thread(drop)
        finally:
            self._report_dropped(stream)

    def _report_dropped(self, stream: str) -> None:
        if self._observer is not None:
            self._observer.oldest_dropped(stream)

    def ready_streams(self) -> list[str]:
        """The streams that were recovered or begun."""
        return list(self._planned)

    def ended_before(self, stream: str) -> int:
        """The sequence number below which no commit writes any more: all segments there ended."""
        state = self._durable[stream]
        return state.active.first if state.active else state.next_seq

    def end_active(self, stream: str) -> None:
        """Ends the active segment; the next commit then begins a new one.

        Does nothing while the stream is being committed, after a failed commit, or if the active
        segment has no records: the next segment would have the same name.
        """
        state = self._planned[stream]
        if self._may_end(stream) and state.active and state.active.count:
            self._durable[stream] = state.without_active()
            self._set_planned(stream, self._durable[stream])

    def _may_end(self, stream: str) -> bool:
        # A failed segment may be visible nevertheless. It must be replaced under its own name,
        # never followed by another segment.
        return not self._unsettled[stream] and stream not in self._uncertain

    def users_of(self, stream: str) -> Users | UnsetType:
        """The counted bytes of each user in `stream` and its batches under way."""
        state = self._planned.get(stream)
        return state.users if state else UNSET

    def knows_producers(self, stream: str) -> bool:
        """Whether `stream` is recovered, or begun, so that its producers are known."""
        return stream in self._durable

    def last_durable(self, stream: str, producer: Producer) -> int:
        """The number of the producer's last durable record in `stream`; 0 if it has none there.

        Only for recovered streams: `next` is an ack, and records that were not read must not be
        acknowledged.
        """
        is_known = stream in self._durable or stream not in self._admitted
        assert is_known, f"stream {stream!r} was not recovered"
        state = self._durable.get(stream)
        return number_of(state.producers, producer) if state else 0

    def followed_files(self) -> dict[str, dict[str, int]]:
        """The durable number of each followed file, by name, in each stream that is recovered.

        O(producers of all streams).
        """
        found: dict[str, dict[str, int]] = {}
        for stream, state in self._durable.items():
            for producer, number in state.producers.items():
                if is_followed_file(producer):
                    found.setdefault(stream, {})[producer.name] = number
        return found

    def plan(
        self,
        stream: str,
        addition: Addition,
        is_in_use: Callable[[Producer], bool] = lambda _: False,
    ) -> PlannedSegment:
        """Plans the next segment of a ready stream. The caller must commit it next.

        `is_in_use` says whether a producer has a connection or waiting records.

        An empty addition has no segment. It is durable once the stream's earlier plans are.
        """
        before = self._planned[stream]
        self._unsettled[stream] += 1
        if not (addition.count or addition.producers):
            return PlannedSegment(None, before, before)
        plan, after = append(
            before,
            addition,
            rewrite_limit=self._config.rewrite_limit,
            max_producers=self._producers_max(before),
            max_producer_names=self._limits.max_producer_names,
            max_users=self._limits.max_users,
            is_in_use=is_in_use,
        )
        self._set_planned(stream, after)
        return PlannedSegment(plan, before, after)

    def _producers_max(self, state: StreamState) -> int:
        """How many producers the stream of `state` may remember now."""
        most = self._limits.max_producers
        if self._producers < _FULL_STREAMS * most:
            return most
        return min(most, max(_FEW_PRODUCERS, len(state.producers)))

    async def commit(
        self,
        planned: Mapping[str, PlannedSegment],
        before: Iterable[Awaitable[object]] = (),
        *,
        in_loop: bool = False,
        beside_large: bool = False,
    ) -> dict[str, Exception]:
        """Makes the planned segments durable; returns the streams that failed, with the reason.

        `in_loop` commits in the event loop's own thread, which blocks meanwhile but saves two
        thread hops. `beside_large` uses the threads that large commits leave alone.
        `before` are earlier commits under way that share a stream with `planned`. Nothing is
        published until everything in this commit is written and fsynced and those commits have
        finished. A stream that failed in one of them fails here with `OutdatedPlan`: its plan was
        made on a state that never became durable.
        """
        self._under_way += 1
        self._move_mark()
        before = list(before)
        executor = self._small_executor if beside_large else self._executor
        async with AsyncExitStack() as stack:
            publication = await stack.enter_async_context(
                Publication(None if in_loop else executor, self._config.threads)
            )
            has_few = len(planned) <= self._held_open_max
            commits = [
                await stack.enter_async_context(
                    StreamCommit(
                        self._writer(segment.plan, self._one_flush_of(stream) if has_few else None),
                        publication,
                        segment,
                        self._outdated,
                    )
                )
                for stream, segment in planned.items()
                if segment.plan is not None
            ]
            # A single writer that waits for no other commit takes all its steps in one hop, later.
            if (before or len(commits) > 1) and self.unusable is None:
                await publication.step(
                    [
                        (commit, commit.writer.prepare)
                        for commit in commits
                        if self._has_directory(commit.stream)
                    ]
                )
            for commit_before in before:
                await commit_before
            unusable = self.look() or (self._mark() if commits else None)
            for commit in commits:
                commit.failure = unusable or commit.failure or self._outdated(commit.planned)
            await self._begin(commits)
            await self._begin_marks(commits)
        failed = {commit.stream: commit.failure for commit in commits if commit.failure}
        for stream, segment in planned.items():
            if segment.plan is None and (why := unusable or self._outdated(segment)):
                failed[stream] = why
        self._note_removed(failed)
        self._settle(planned, failed)
        self._under_way -= 1
        return failed

    def commit_alone(self, planned: Mapping[str, PlannedSegment]) -> dict[str, Exception] | None:
        """Commits a single segment in this thread, as `commit` does, if nothing else is under way.

        Returns None, and does nothing, if there are several segments or something has to be begun
        for this one. Without an exit stack and a task: between two syncs the caches are cold, and
        the code of both costs more than the writer's own.
        """
        if len(planned) != 1:
            return None
        ((stream, segment),) = planned.items()
        plan, opened = segment.plan, self._opened
        assert opened is not None, "the store is not open"
        if plan is None or not (self._has_directory(stream) and opened.marks.has_begun(stream)):
            return None
        self._under_way += 1
        self._move_mark()
        failure = self.look() or self._mark() or self._outdated(segment)
        if failure is None:
            ahead = self._writer_ahead(opened, plan)
            writer = SegmentWriter(
                self.data,
                plan,
                names=self.names,
                direct_above=self._config.direct_above,
                ahead=ahead,
                one_flush=self._one_flush_of(stream),
            )
            try:
                writer.publish()
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream failed
                writer.abort()
                failure = error
            else:
                self._unmarked = plan
                asyncio.get_running_loop().call_soon(self._after_ack, opened, plan)
        failed = {} if failure is None else {stream: failure}
        self._note_removed(failed)
        self._settle(planned, failed)
        self._under_way -= 1
        return failed

    def _writer_ahead(self, opened: OpenedData, plan: SegmentPlan) -> EarlyWriter | None:
        if self.names.may_remove_from(plan.stream):
            return opened.ahead.take(plan.stream, plan.file_name)
        # A failed sync, such as a compaction's, may have lost the temp's name.
        if (ahead := opened.ahead.let_go(plan.stream)) is not None:
            self._close_in_thread([ahead])
        return None

    def _after_ack(self, opened: OpenedData, plan: SegmentPlan) -> None:
        """Does for a commit alone what can wait until its sender has the ack."""
        if self._opened is not opened:
            return  # closed, or replaced
        self._move_mark()
        self.tell_followers()
        # Where a sync failed meanwhile, the next commit lets go of it.
        loop = asyncio.get_running_loop()
        opened.ahead.committed(plan.stream, plan.file_name, loop.time())
        if self._dropping is None:
            self._dropping = loop.call_later(KEPT_S, self._drop_idle)

    def _move_mark(self) -> None:
        """Moves the mark of the last commit alone, if that was not done yet."""
        if self._unmarked is not None:
            plan, self._unmarked = self._unmarked, None
            self._marks.move(plan.stream, plan.last, plan.first)

    def _drop_idle(self) -> None:
        """Closes writers ahead that were not used for a while."""
        self._dropping = None
        if self._opened is None:
            return
        ahead, loop = self._opened.ahead, asyncio.get_running_loop()
        self._close_in_thread(ahead.left_over(loop.time()))
        if not ahead.is_empty:
            self._dropping = loop.call_later(KEPT_S, self._drop_idle)

    def _close_in_thread(self, writers: Sequence[WriterAhead]) -> None:
        # The disk may hang, and the loop must not wait for it.
        loop = asyncio.get_running_loop()
        for writer in writers:
            loop.run_in_executor(self._executor, writer.close)

    def _is_there(self, stream: str) -> bool:
        try:
            return self.data.has(stream)
        except OSError:
            return True  # unknown

    def look(self) -> Exception | None:
        """Why nothing is committed; None if the path still leads to the opened directory."""
        if self.unusable is None and self._opened is not None:
            self.unusable = self._opened.locked.why_not_in_place()
            if self.unusable is not None:
                self._seen_unusable.set()
        return self.unusable

    async def until_unusable(self) -> None:
        """Returns when `look` has found that nothing can be committed any more."""
        await self._seen_unusable.wait()

    def _has_directory(self, stream: str) -> bool:
        """Whether the stream should have a directory; that of a new stream may not exist yet."""
        return self._durable[stream].next_seq > 1 and stream not in self._removed

    def _note_removed(self, failed: Mapping[str, Exception]) -> None:
        """Finds the failed streams whose directory is gone, with everything in it.

        Such a stream continues with its next number in a new directory.
        """
        for stream, error in failed.items():
            is_missing = isinstance(error, OSError) and error.errno == errno.ENOENT
            if not is_missing or not self._has_directory(stream) or self._is_there(stream):
                continue
            next_seq = self._durable[stream].next_seq
            log.error("stream_directory_removed", stream=stream, goes_on_at=next_seq)
            self._removed.add(stream)
            self._durable[stream] = self._durable[stream].without_active()
            self._report_dropped(stream)

    def _outdated(self, planned: PlannedSegment) -> OutdatedPlan | None:
        """Why `planned` must not be published: the state it was made on is not the durable one."""
        stream = planned.before.stream
        durable = self._durable[stream]
        if planned.before is durable:
            return None
        return OutdatedPlan(
            f"stream {stream!r}: a commit was planned to continue at number "
            f"{planned.before.next_seq}, but the durable state continues at {durable.next_seq}; "
            "it is not published, but planned again"
        )

    def _mark(self) -> OSError | None:
        """Leaves the crash mark for the next process. The error if that fails, otherwise None."""
        try:
            assert self._opened is not None, "the store is not open"
            self._opened.crash_mark.mark()
        except OSError as error:
            return error
        return None

    def _writer(self, plan: SegmentPlan, one_flush: OneFlush | None) -> SegmentWriter:
        marks = self._marks
        return SegmentWriter(
            self.data,
            plan,
            names=self.names,
            direct_above=self._config.direct_above,
            on_durable=partial(marks.move, plan.stream, plan.last, plan.first),
            one_flush=one_flush,
        )

    async def _begin(self, commits: Sequence[StreamCommit]) -> None:
        """Makes the directories of streams that begin here; stores each failure in its commit.

        One thread of one commit at a time: a failed sync of the data directory may lose any name
        that was made before it.
        """
        beginning = {
            commit.stream: commit
            for commit in commits
            if (commit.begins_stream or commit.stream in self._removed) and commit.failure is None
        }
        if not beginning:
            return
        loop = asyncio.get_running_loop()
        async with self._beginning:
            failed = await loop.run_in_executor(
                self._executor, create_directories, self.data, list(beginning)
            )
        for stream, error in failed.items():
            beginning[stream].failure = error

    async def _begin_marks(self, commits: Sequence[StreamCommit]) -> None:
        """Leaves the durable marks of these streams, so that followers go by the marks.

        This precedes every rename in the stream: a follower that finds no mark syncs itself.
        Stores each failure in its commit.
        """
        marks = self._marks
        silent = [
            commit
            for commit in commits
            if commit.failure is None and not marks.has_begun(commit.stream)
        ]
        if not silent:
            return

        def begin() -> None:
            for commit in silent:
                try:
                    marks.begin(commit.stream, self._durable[commit.stream].next_seq - 1)
                except OSError as error:
                    commit.failure = error

        await asyncio.get_running_loop().run_in_executor(self._executor, begin)

    def tell_followers(self) -> None:
        """Schedules another try for durable marks that are behind, until none is."""
        if self._opened is None or not self._marks.is_behind:
            self._catch_up_s = _CATCH_UP_S
            return
        if self._catching_up is not None:
            return
        loop = asyncio.get_running_loop()

        def tried(_: object) -> None:
            self._catching_up = None
            self._catch_up_s = min(2 * self._catch_up_s, _CATCH_UP_S_MAX)
            self.tell_followers()

        def catch_up() -> None:
            if self._opened is not None:
                marks = self._marks
                loop.run_in_executor(self._executor, marks.catch_up).add_done_callback(tried)

        self._catching_up = loop.call_later(self._catch_up_s, catch_up)

    def _settle(
        self, planned: Mapping[str, PlannedSegment], failed: Mapping[str, Exception]
    ) -> None:
        for stream, segment in planned.items():
            self._unsettled[stream] -= 1
            if stream in failed:
                if self._opened and (ahead := self._opened.ahead.let_go(stream)):
                    self._close_in_thread([ahead])
                if segment.plan is not None and not isinstance(failed[stream], OutdatedPlan):
                    self._uncertain.add(stream)
                self._set_planned(stream, self._durable[stream])
            elif segment.plan is not None:
                self._uncertain.discard(stream)
                self._removed.discard(stream)
                self._durable[stream] = segment.after
                if segment.plan.begins_stream and self._opened is not None:
                    self._opened.crash_mark.note_streams([stream])
                if self._observer is not None:
                    self._observer.segment_committed(segment.plan)
        self.tell_followers()
        self._evict_active_segments()
        self._perhaps_left_alone()

    def _adopt(self, stream: str, recovery: Recovery) -> Recovery:
        self._durable[stream] = recovery.state
        self._set_planned(stream, recovery.state)
        return recovery

    def _set_planned(self, stream: str, state: StreamState) -> None:
        before = self._planned.get(stream)
        self._active_bytes += _active_bytes(state) - _active_bytes(before)
        self._producers += len(state.producers) - (len(before.producers) if before else 0)
        self._planned[stream] = state
        self._planned.move_to_end(stream)

    def _evict_active_segments(self) -> None:
        """Ends active segments, least recently used first, until the cache is within its limit."""
        if self._active_bytes <= self._limits.active_cache:
            return  # without a copy of what may be thousands of names
        for stream in list(self._planned):
            if self._active_bytes <= self._limits.active_cache:
                return
            state = self._planned[stream]
            if state.active and self._may_end(stream):
                ended = state.without_active()
                self._durable[stream] = self._planned[stream] = ended
                self._active_bytes -= _active_bytes(state)


def _active_bytes(state: StreamState | None) -> int:
    return len(state.active.body) if state and state.active else 0
