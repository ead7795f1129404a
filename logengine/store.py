"""All streams of a data directory, under one lock, and the commit of a batch.

DATA/.lock      held by the one daemon of this directory
DATA/.running   there until it ends well (`running`)
DATA/.durable/  what of each stream is durable, for followers (`durable_mark`)
DATA/STREAM/    one directory per stream
"""

import asyncio
import fcntl
import functools
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog
from msgspec import UNSET, UnsetType

from logengine.directory import create_directories, create_directory, sync_directory
from logengine.durable_mark import DurableMarks
from logengine.errors import DataDirectoryLocked, TooManyStreams
from logengine.plan import Addition, SegmentPlan, StreamState, append
from logengine.publication import Publication, StreamCommit
from logengine.room import StoredSegment
from logengine.running import Running, read_boot_id
from logengine.segment_file import list_streams
from logengine.stream import Recovery, SegmentWriter, drop_oldest, recover
from logengine.user_bytes import Users

log = structlog.get_logger()

LOCK_NAME = ".lock"
# How soon it is tried again to tell followers what they could not be told.
_CATCH_UP_S = 0.1


@dataclass(frozen=True)
class StoreLimits:
    """What bounds the store; sizes in bytes. See `config/logengine.toml` for each."""

    rewrite_limit: int = 64 * 1024
    direct_above: int = 256 * 1024
    threads: int = 8
    max_producers: int = 1024
    max_users: int = 1024
    max_streams: int = 4096
    active_cache: int = 32 * 1024 * 1024


def lock_data_directory(data: Path) -> int:
    """Takes the lock that says who writes in `data`; a descriptor, closing it gives it free.

    Raises `DataDirectoryLocked` if a daemon has it, and `OSError`.
    """
    # For reading: a file open for writing keeps its file system from being remounted so.
    lock = os.open(data / LOCK_NAME, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataDirectoryLocked(
            f"{data} is in use by another logengine daemon; "
            "stop that one, or give this one a directory of its own with --data"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _tell_of_unsynced(stream: str) -> None:
    log.error(
        "removals_ended",
        stream=stream,
        until="the next boot",
        reason="a sync of its directory failed",
    )


class Store:
    """The streams of a data directory. One daemon's; readers need none of it.

    Between `plan` and the end of its `commit` a stream's state runs ahead of the disk, so
    that the next batch can be planned and prepared meanwhile. A failed commit sets it
    back to what is durable: what was planned on top must be planned again.
    """

    def __init__(
        self,
        data: Path,
        executor: Executor,
        limits: StoreLimits | None = None,
        *,
        boot_id: str | None = None,
    ) -> None:
        """`boot_id` names the boot of the machine, where that is not for the kernel to say."""
        self.data = data
        self._executor = executor
        self._limits = limits or StoreLimits()
        self._lock: int | None = None
        self._durable: dict[str, StreamState] = {}
        # In the order of their last use, for the cache of active segments.
        self._planned: OrderedDict[str, StreamState] = OrderedDict()
        self._active_bytes = 0
        # All that have a place among `max_streams`, also those that are not ready.
        self._admitted: set[str] = set()
        # Streams whose last commit failed: what it wrote may be visible or not.
        self._uncertain: set[str] = set()
        # Commits that did not return, be it for an exception: what they left is not known.
        self._under_way = 0
        boot_id = read_boot_id() if boot_id is None else boot_id
        self._running = Running(data, boot_id, _tell_of_unsynced)
        self._marks = DurableMarks(data, boot_id)
        self._catching_up: asyncio.TimerHandle | None = None
        # Streams whose directory could not be synced after a name was removed or replaced. What
        # is gone may come back, so nothing more goes until the next boot.
        self.unsynced: set[str] = self._running.unsynced
        # Called with a stream whose oldest segments were dropped, all that were to be or some.
        self.on_dropped: Callable[[str], None] = lambda _: None
        # Called with each segment that is durable, in the order of the commits.
        self.on_segment: Callable[[SegmentPlan], None] = lambda _: None

    def open(self) -> dict[str, Recovery | OSError]:
        """Locks the data directory, making it if need be, and recovers every stream.

        Gives what was found of each. A stream that cannot be recovered now has its error
        there, and is tried again when something is sent to it. After a process that was killed
        in this boot, the threads share the streams, because each has to be written to. Raises
        `DataDirectoryLocked` if another daemon has the directory, and `OSError`.
        """
        create_directory(self.data)
        self._lock = lock_data_directory(self.data)
        self._running.begin()
        # A stream's directory that somebody put here may not be on the disk yet.
        sync_directory(self.data)
        streams = list_streams(self.data)
        self._admitted.update(streams)
        recovered: dict[str, Recovery | OSError] = {}
        for stream, found in zip(streams, self._recoveries(streams), strict=True):
            recovered[stream] = found if isinstance(found, OSError) else self._adopt(stream, found)
        self._marks.take_over({s: state.next_seq - 1 for s, state in self._durable.items()})
        return recovered

    def _recoveries(self, streams: Sequence[str]) -> Iterable[Recovery | OSError]:
        """What recovery gives of each of `streams`, or why it does not."""
        if not self._running.died_before:
            return (self._try_to_recover(stream, self._active_bytes_left()) for stream in streams)
        # Each its share: what the others take of the cache is not known meanwhile.
        share_bytes = self._limits.active_cache // max(1, len(streams))
        return self._executor.map(lambda stream: self._try_to_recover(stream, share_bytes), streams)

    def close(self) -> None:
        """Gives the data directory free, and says that this process ended well, if it did."""
        if self._lock is None:
            return
        is_in_doubt = self._running.died_before and not self._admitted <= self._planned.keys()
        if self._catching_up is not None:
            self._catching_up.cancel()
        if not (self._under_way or self._uncertain or self.unsynced or is_in_doubt):
            self._marks.end()
            self._running.end()
        os.close(self._lock)
        self._lock = None

    @property
    def streams(self) -> int:
        """How many streams have a place."""
        return len(self._admitted)

    def is_ready(self, stream: str) -> bool:
        """Whether it is known where `stream` goes on."""
        return stream in self._planned

    async def recover_stream(self, stream: str) -> Recovery:
        """Makes a stream ready: a new one, or one that could not be read at the start.

        Raises `OSError`, and `TooManyStreams` for a new one above the limit.
        """
        self.admit(stream)
        loop = asyncio.get_running_loop()
        active_bytes_max = self._active_bytes_left()

        def make_ready() -> Recovery:
            recovery = self._recover(stream, active_bytes_max)
            self._marks.recovered(stream, recovery.state.next_seq - 1)
            return recovery

        return self._adopt(stream, await loop.run_in_executor(self._executor, make_ready))

    def admit(self, stream: str) -> None:
        """Gives `stream` its place. Raises `TooManyStreams` if there are `max_streams` others."""
        if stream not in self._admitted and len(self._admitted) >= self._limits.max_streams:
            raise TooManyStreams(
                f"stream {stream!r} would be one more than max_streams "
                f"({self._limits.max_streams}); use one of those, or raise [limits] max_streams"
            )
        self._admitted.add(stream)

    async def drop_oldest(self, stream: str, wanted_bytes: int) -> list[StoredSegment]:
        """Removes the oldest segments of a stream, for `wanted_bytes` of room; gives them.

        Not the newest one that is durable, and none if `stream` is not ready or `unsynced`.
        Nobody else may change names in its directory meanwhile. Raises `OSError`.
        """
        state = self._durable.get(stream)
        if state is None or state.next_seq == 1 or stream in self.unsynced:
            return []

        def drop() -> list[StoredSegment]:
            return drop_oldest(self.data / stream, wanted_bytes, state.next_seq, self.unsynced)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, drop)
        finally:
            self.on_dropped(stream)

    def ready_streams(self) -> list[str]:
        """The streams of which it is known where they go on."""
        return list(self._planned)

    def ended_before(self, stream: str) -> int:
        """The sequence number below which no commit writes any more: all there is ended."""
        state = self._durable[stream]
        return state.active.first if state.active else state.next_seq

    def end_active(self, stream: str) -> None:
        """Ends the active segment, so that the next commit begins a new one.

        Not of a stream that is being committed, or whose last commit failed, nor one that
        holds no record: its name is the next one's, too.
        """
        state = self._planned[stream]
        if self._may_end(stream) and state.active and state.active.count:
            self._durable[stream] = state.without_active()
            self._set_planned(stream, self._durable[stream])

    def _may_end(self, stream: str) -> bool:
        # One that failed may be visible all the same, and is then to be replaced under its
        # name, never to be followed.
        return self._planned[stream] is self._durable[stream] and stream not in self._uncertain

    def users_of(self, stream: str) -> Users | UnsetType:
        """How many bytes of each user are in `stream` and its batches under way, as counted."""
        state = self._planned.get(stream)
        return state.users if state else UNSET

    def last_durable(self, stream: str, producer: str) -> int:
        """The number of the producer's last durable record in `stream`; 0 if it is not known."""
        state = self._durable.get(stream)
        return state.producers.get(producer, 0) if state else 0

    def plan(self, stream: str, addition: Addition) -> "PlannedSegment":
        """Plans the next segment of a stream that is ready; it is to be committed next."""
        planned = PlannedSegment(
            *append(
                self._planned[stream],
                addition,
                rewrite_limit=self._limits.rewrite_limit,
                max_producers=self._limits.max_producers,
                max_users=self._limits.max_users,
            )
        )
        self._set_planned(stream, planned.after)
        return planned

    async def commit(
        self,
        planned: Mapping[str, "PlannedSegment"],
        previous: Awaitable[Mapping[str, Exception]] | None = None,
        *,
        in_loop: bool = False,
    ) -> dict[str, Exception]:
        """Makes the planned segments durable; gives the streams that failed, with the reason.

        `in_loop` has it done by the event loop's own thread, which then does nothing else:
        two thread hops less, for who can afford to wait.
        `previous` is the commit before, if that is still under way. Nothing is published
        before everything of this commit is written and fsynced, nor before the previous
        commit is through. A stream that failed there fails here for the same reason: its
        plan was built on what never came to be.
        """
        self._under_way += 1
        async with AsyncExitStack() as stack:
            publication = await stack.enter_async_context(
                Publication(None if in_loop else self._executor, self._limits.threads)
            )
            commits = [
                await stack.enter_async_context(
                    StreamCommit(self._writer(segment.plan), publication)
                )
                for segment in planned.values()
            ]
            # A single writer with nobody to wait for takes all its steps in one hop, later.
            if previous is not None or len(commits) > 1:
                await publication.step(
                    [
                        (commit, commit.writer.prepare)
                        for commit in commits
                        if self._durable[commit.stream].next_seq > 1
                    ]
                )
            failed_before = await previous if previous is not None else {}
            if unmarked := self._mark():
                failed_before = dict.fromkeys(planned, unmarked)
            beginning = [
                s for s, p in planned.items() if p.plan.begins_stream and s not in failed_before
            ]
            failed_before = {**failed_before, **await self._begin(beginning)}
            if silent := [
                s for s in planned if not self._marks.has_begun(s) and s not in failed_before
            ]:
                failed_before |= await self._begin_marks(silent)
            for commit in commits:
                commit.failure = failed_before.get(commit.stream, commit.failure)
        failed = {commit.stream: commit.failure for commit in commits if commit.failure}
        self._settle(planned, failed)
        self._under_way -= 1
        return failed

    def _mark(self) -> OSError | None:
        """Why the next process could not be told if this one is killed; None if it is."""
        try:
            self._running.mark()
        except OSError as error:
            return error
        return None

    def _writer(self, plan: SegmentPlan) -> SegmentWriter:
        return SegmentWriter(
            self.data,
            plan,
            direct_above=self._limits.direct_above,
            unsynced=self.unsynced,
            on_durable=functools.partial(self._marks.move, plan.stream, plan.last, plan.first),
        )

    async def _begin(self, streams: Sequence[str]) -> Mapping[str, Exception]:
        """Makes the directories of new streams; gives those that failed.

        In one thread and by one commit at a time, because a sync of the data directory
        that fails may have lost any name that was made before it.
        """
        if not streams:
            return {}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, create_directories, self.data, streams)

    async def _begin_marks(self, streams: Sequence[str]) -> dict[str, Exception]:
        """Has followers wait for what these streams are told to be durable; gives who failed.

        Before anything of theirs takes a name: a follower that finds no mark syncs for itself.
        """
        failed: dict[str, Exception] = {}

        def begin() -> None:
            for stream in streams:
                try:
                    self._marks.begin(stream, self._durable[stream].next_seq - 1)
                except OSError as error:
                    failed[stream] = error

        await asyncio.get_running_loop().run_in_executor(self._executor, begin)
        return failed

    def _catch_up_later(self) -> None:
        """Has followers told in a moment of what they could not be told."""
        if self._catching_up is not None or not self._marks.is_behind or self._lock is None:
            return
        loop = asyncio.get_running_loop()

        def tried(_: object) -> None:
            self._catching_up = None
            self._catch_up_later()

        def catch_up() -> None:
            loop.run_in_executor(self._executor, self._marks.catch_up).add_done_callback(tried)

        self._catching_up = loop.call_later(_CATCH_UP_S, catch_up)

    def _settle(
        self, planned: Mapping[str, "PlannedSegment"], failed: Mapping[str, Exception]
    ) -> None:
        for stream, segment in planned.items():
            if stream in failed:
                self._uncertain.add(stream)
                self._set_planned(stream, self._durable[stream])
            else:
                self._uncertain.discard(stream)
                self._durable[stream] = segment.after
                self.on_segment(segment.plan)
        if self._marks.is_behind:
            self._catch_up_later()
        self._evict_active_segments()

    def _active_bytes_left(self) -> int:
        return self._limits.active_cache - self._active_bytes

    def _try_to_recover(self, stream: str, active_bytes_max: int) -> Recovery | OSError:
        try:
            return self._recover(stream, active_bytes_max)
        except OSError as error:
            return error

    def _recover(self, stream: str, active_bytes_max: int) -> Recovery:
        return recover(
            self.data / stream,
            rewrite_limit=self._limits.rewrite_limit,
            active_bytes_max=active_bytes_max,
            writes_again=self._running.died_before,
            unsynced=self.unsynced,
        )

    def _adopt(self, stream: str, recovery: Recovery) -> Recovery:
        self._durable[stream] = recovery.state
        self._set_planned(stream, recovery.state)
        return recovery

    def _set_planned(self, stream: str, state: StreamState) -> None:
        self._active_bytes += _active_bytes(state) - _active_bytes(self._planned.get(stream))
        self._planned[stream] = state
        self._planned.move_to_end(stream)

    def _evict_active_segments(self) -> None:
        """Ends the active segments of the streams used least recently, above the cache's limit."""
        for stream in list(self._planned):
            if self._active_bytes <= self._limits.active_cache:
                return
            state = self._planned[stream]
            if state.active and self._may_end(stream):
                ended = state.without_active()
                self._durable[stream] = self._planned[stream] = ended
                self._active_bytes -= _active_bytes(state)


class PlannedSegment(NamedTuple):
    """A segment to be committed, and the stream's state once it is."""

    plan: SegmentPlan
    after: StreamState


def _active_bytes(state: StreamState | None) -> int:
    return len(state.active.body) if state and state.active else 0
