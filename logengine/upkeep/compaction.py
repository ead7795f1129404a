"""Compaction concurrent with commits: carries out what `compaction_plan` decides, step by step.

The work runs in a separate thread, at a limited rate. Commits report the ended segments of each
stream, so a directory is listed only if those are unknown: at first, after a failure, and when a
stream has gone quiet. A result gets its name while no commit is under way in its stream. The
segments that it covers are removed only after it is durable. If a full disk drops the oldest
segments meanwhile, what was made of them is discarded.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog

from logengine.disk.directory import Directory
from logengine.disk.durable_names import remove_covered
from logengine.errors import DamagedSegment, LogEngineError
from logengine.format.segment import first_of_name, segment_name
from logengine.store.committer import Committer
from logengine.store.plan import SegmentPlan
from logengine.store.store import Store
from logengine.store.stream import SegmentWriter
from logengine.upkeep.compaction_plan import (
    CompactionConfig,
    EndedSegment,
    Merge,
    Seal,
    choose,
    choose_when_quiet,
    quiet_after,
)
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import Removal
from logengine.upkeep.rewrite import CompactionStopped, Rewriter
from logengine.upkeep.search_filter_builder import SearchFilterBuilder
from logengine.upkeep.survey import Leftover, Survey, survey

log = structlog.get_logger()

# How often retention is checked if nothing is sealed.
_RETAIN_EVERY_S = 30.0
# After a failed compaction of a stream, the pause before each further attempt doubles.
_RETRY_S_MIN = 1.0
_RETRY_S_MAX = 60.0
# How often streams are checked for having gone quiet or being due for a retry.
_SCAN_EVERY_S_MIN = 0.001
_SCAN_EVERY_S_MAX = 5.0
# The share of a core for building search filters, while commits arrive and otherwise.
_FILTER_SHARE_BUSY = 0.05
_FILTER_SHARE = 0.5
_BUSY_FOR_S = 1.0

Result = TypeVar("Result")


@dataclass
class CompactionTotals:
    """What was done since the start. Bytes are those of the rewritten bodies."""

    merges: int = 0
    merged_bytes: int = 0
    seals: int = 0
    sealed_bytes: int = 0
    failures: int = 0
    removed: int = 0


@dataclass
class _Known:
    """What is known about one stream.

    `survey` is a snapshot. `newest` is the last segment that a commit has written since, `ended`
    are those before it.
    """

    touched_at: float
    survey: Survey | None = None
    newest: EndedSegment | None = None
    ended: list[EndedSegment] = field(default_factory=list)
    commits: int = 0
    is_settled: bool = False  # quiet, and nothing to do until the next commit
    failures: int = 0
    retry_at: float = 0.0
    damaged: set[int] = field(default_factory=set)
    drops: int = 0  # how often a full disk took the oldest segments

    def unsealed_bytes(self) -> int:
        """Returns about how many bytes are not in sealed segments."""
        parts = [*(self.survey.parts if self.survey else []), *self.ended]
        if self.newest is not None:
            parts.append(self.newest)
        # Counted once per name: what has ended since may already be in the survey.
        return sum({part.first: part.bytes for part in parts}.values())

    def current_survey(self, ended_before: int) -> Survey | None:
        """Returns the survey with what has ended since, if it is complete up to `ended_before`."""
        ended, self.ended = self.ended, []
        # A segment that its first commit filled has ended before the next commit reports it.
        if self.newest is not None and self.newest.first < ended_before:
            ended.append(self.newest)
        if self.survey is not None and self.survey.is_complete:
            for part in ended:
                if part.first == self.survey.ended_before:
                    self.survey.parts.append(part)
                    self.survey.ended_before = part.last + 1
            if self.survey.ended_before != ended_before:
                self.survey = None
        # An incomplete survey is of the oldest segments; what has ended since is not among them.
        return self.survey


class Compactor:
    """Merges and seals the ended segments of a store's streams.

    Runs on the committer's event loop and never blocks it; `executor` must not be used by others.
    It works in the directory that the store has open at construction. If the store opens another
    one, stop this object and create a new one. `totals` continue from the values given.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        rewriter: Rewriter,
        config: CompactionConfig,
        executor: Executor,
        clock: Callable[[], float] = time.monotonic,
        retainer: Retainer | None = None,
        totals: CompactionTotals | None = None,
        filters: SearchFilterBuilder | None = None,
        retry_min_s: float = _RETRY_S_MIN,
        retry_max_s: float = _RETRY_S_MAX,
    ) -> None:
        self._store = store
        self._data = store.data
        self._committer = committer
        self._rewriter = rewriter
        self._config = config
        self._executor = executor
        self._clock = clock
        self._retainer = retainer
        self._filters = filters
        self._filter_at = 0.0
        self._committed_at = 0.0
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._retain_at = 0.0
        self._retention_failures = 0
        self._known = {
            stream: _Known(clock()) for stream in store.ready_streams() if store.has_records(stream)
        }
        # In the order of their turns; a dict, so each stream is in it once.
        self._due = dict.fromkeys(self._known)
        quiet_s = min(config.seal_after, config.seal_small_after)
        self._look_every_s = min(_SCAN_EVERY_S_MAX, max(quiet_s / 2, _SCAN_EVERY_S_MIN))
        self._look_at = 0.0
        self._woken = asyncio.Event()
        self._stopping = False
        self._idle = asyncio.Event()
        self._ended = asyncio.Event()
        self.totals = CompactionTotals() if totals is None else totals

    async def run(self) -> None:
        """Works until `stop` is called; observes the store meanwhile."""
        try:
            with self._store.observed_by(self):
                while not self._stopping:
                    await self._work()
        finally:
            self._ended.set()
            self._idle.set()

    async def _work(self) -> None:
        """Does one thing that is due, or waits for one."""
        if self._clock() >= self._look_at:
            self.look()
        if self._retainer is not None and self._clock() >= self._retain_at:
            self._retain_at = self._clock() + _RETAIN_EVERY_S
            await self._retain(self._retainer)
        if self._due:
            stream = next(iter(self._due))
            del self._due[stream]
            await self._take_turn(stream, self._known[stream])
        elif self._filters is not None and self._filters.has_work and self._filter_in_s() <= 0:
            await self._build(self._filters)
        else:
            await self._wait()

    async def idle(self) -> None:
        """Returns when there is nothing to do for now, or all that is left has failed."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Interrupts the current rewrite, and returns when `run` has returned."""
        self._stopping = True
        self._rewriter.pace.stop()
        self._woken.set()
        await self._ended.wait()

    def segment_committed(self, plan: SegmentPlan) -> None:
        """Notes a segment that is durable, and the one before it, which has ended if it is new."""
        known = self._known.get(plan.stream)
        if known is None:
            known = self._known[plan.stream] = _Known(0.0)
        known.touched_at = self._committed_at = self._clock()
        known.commits += 1
        known.is_settled = False
        if known.newest is not None and known.newest.first != plan.first:
            known.ended.append(known.newest)
            self._make_due(plan.stream, known)
        known.newest = EndedSegment(plan.first, plan.last, plan.body_bytes)

    def oldest_dropped(self, stream: str) -> None:
        """Forgets what was known about the oldest segments of a stream."""
        self._changed(stream)
        known = self._known.get(stream)
        if known is not None:
            known.drops += 1
            known.survey = None

    def stream_forgotten(self, stream: str) -> None:
        """Forgets a stream that has no records; a step that is under way ends it."""
        self._known.pop(stream, None)
        self._due.pop(stream, None)

    def _make_due(self, stream: str, known: _Known) -> None:
        if self._known.get(stream) is not known:
            return
        if known.retry_at <= self._clock():
            self._due[stream] = None
            self._idle.clear()
            self._woken.set()

    def look(self) -> None:
        """Schedules streams that have gone quiet or are due for a retry."""
        self._look_at = self._clock() + self._look_every_s
        for stream in self._store.ready_streams():
            if stream not in self._known and self._store.has_records(stream):
                # The stream could not be recovered at the start.
                self._known[stream] = _Known(self._clock())
                self._make_due(stream, self._known[stream])
        for stream, known in self._known.items():
            if known.failures or self._is_quiet(known):
                self._make_due(stream, known)

    async def _wait(self) -> None:
        self._idle.set()
        self._woken.clear()
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._look_every_s, self._filter_in_s())):
                    await self._woken.wait()

    def _filter_in_s(self) -> float:
        """Returns how long to wait before the next search filter; infinite if none is missing."""
        if self._filters is None or not self._filters.has_work:
            return math.inf
        return self._filter_at - self._clock()

    async def _build(self, filters: SearchFilterBuilder) -> None:
        """Does one step for search filters, and sets the pause after it."""
        begun_at = self._clock()
        try:
            await self._in_thread(filters.step, self._rewriter.pace.rest)
        except CompactionStopped:
            return
        except (OSError, LogEngineError) as error:
            log.warning("search_filters_failed", error=str(error))
        now = self._clock()
        is_busy = now - self._committed_at < _BUSY_FOR_S
        share = _FILTER_SHARE_BUSY if is_busy else _FILTER_SHARE
        self._filter_at = now + (now - begun_at) * (1 / share - 1)

    def _changed(self, stream: str) -> None:
        """Notes that the sealed segments of a stream are others than before."""
        if self._filters is not None:
            self._filters.changed(stream)

    def _is_quiet(self, known: _Known) -> bool:
        quiet_s = self._clock() - known.touched_at
        # Most streams return here; their segments are not checked.
        if known.is_settled or quiet_s < self._config.seal_after:
            return False
        return quiet_s >= quiet_after(known.unsealed_bytes(), self._config)

    async def _take_turn(self, stream: str, known: _Known) -> None:
        """Does one step of a stream, and schedules it again if there may be more."""
        drops = known.drops
        try:
            may_have_more = await self._step(stream, known)
        except CompactionStopped:
            return
        except Exception as error:  # noqa: BLE001 - any error is retried
            async with self._committer.held(stream):
                pass  # a drop that is under way is reported when it ends
            if known.drops == drops and not isinstance(error, DamagedSegment | _Outdated):
                self._failed(stream, known, error)
                return
            # A segment that was just being dropped may look damaged.
            if known.drops == drops and isinstance(error, DamagedSegment):
                self._report(stream, known, [error])
            known.survey = None
            may_have_more = True
        if known.drops != drops:
            known.survey = None
        if known.failures:
            log.info("compaction_recovered", stream=stream, failed_attempts=known.failures)
            known.failures = 0
        if may_have_more:
            self._make_due(stream, known)

    def _failed(self, stream: str, known: _Known, error: Exception) -> None:
        known.survey = None
        pause_s = min(self._retry_max_s, self._retry_min_s * 2 ** min(known.failures, 30))
        known.retry_at = self._clock() + pause_s
        known.failures += 1
        self.totals.failures += 1
        if known.failures == 1:
            log.error(
                "compaction_failed",
                stream=stream,
                error=str(error),
                retry_in_s=pause_s,
                exc_info=None if isinstance(error, OSError) else error,
            )

    def _report(self, stream: str, known: _Known, damages: Sequence[DamagedSegment]) -> None:
        for damage in damages:
            first = first_of_name(os.path.basename(damage.path))
            if first is not None and first not in known.damaged:
                known.damaged.add(first)
                log.error("segment_damaged", stream=stream, path=damage.path, reason=damage.reason)

    async def _step(self, stream: str, known: _Known) -> bool:
        """Does the next piece of work in a stream; returns whether there may be more."""
        is_quiet, commits = self._is_quiet(known), known.commits
        if is_quiet:
            self._store.end_active(stream)
        ended_before = self._store.ended_before(stream)
        found = known.current_survey(ended_before)
        if found is None:
            found = known.survey = await self._in_thread(
                _survey, self._data, stream, ended_before, frozenset(known.damaged)
            )
            self._report(stream, known, found.damaged)
        if found.leftover is not None:
            await self._clear_up(stream, found.leftover)
            known.survey = None
            return True
        decide = choose_when_quiet if is_quiet else choose
        action = decide(found.parts, found.seal_from, self._config)
        if action is not None:
            await self._carry_out(stream, found, action)
            return True
        if not found.is_complete:
            known.survey = None
            return found.has_room()
        if is_quiet and commits == known.commits:
            known.is_settled = True
        return False

    async def _retain(self, retainer: Retainer) -> None:
        """Removes what retention no longer keeps, one segment at a time."""
        try:
            await self._in_thread(retainer.look)
            while not self._stopping:
                removal = await self._in_thread(retainer.next_removal)
                if removal is None:
                    break
                removed = partial(self._removed, removal)
                try:
                    async with self._committer.held(removal.stream):
                        await self._in_thread(retainer.remove, removal, removed)
                finally:
                    self._changed(removal.stream)
        except Exception as error:
            self._retention_failures += 1
            if self._retention_failures == 1:
                is_told = isinstance(error, OSError | LogEngineError)
                log.error("retention_failed", error=str(error), exc_info=None if is_told else error)
            return
        self._retention_failures = 0

    def _removed(self, removal: Removal) -> None:
        """Counts and logs a removal, in the thread that removes, before a sync that may fail."""
        self.totals.removed += 1
        if removal.passed_over:
            log.warning(
                "removed_before_it_was_read",
                stream=removal.stream,
                cursors=removal.passed_over,
                segment=removal.oldest.name,
            )
        log.info(
            "segment_removed",
            stream=removal.stream,
            segment=removal.oldest.name,
            because=removal.reason,
            bytes=removal.oldest.bytes,
        )

    async def _carry_out(self, stream: str, found: Survey, action: Merge | Seal) -> None:
        parts = action.parts
        names = [segment_name(part.first, compressed=part.is_compressed) for part in parts]
        covered = names[1:]
        at = found.parts.index(parts[0])
        if isinstance(action, Merge):
            writer, header = await self._in_thread(self._rewriter.merge, stream, parts)
            await self._publish(stream, writer, names, covered)
            found.parts[at : at + len(parts)] = [
                EndedSegment(header.first, header.last, header.bytes)
            ]
            self.totals.merges += 1
            self.totals.merged_bytes += header.bytes
            return
        after = None
        if found.sealed is not None:
            after = found.sealed.first
            names.append(found.sealed.file_name)
        writer, header = await self._in_thread(self._rewriter.seal, stream, parts, after)
        if not parts[0].is_compressed:
            covered.append(segment_name(header.first))
        await self._publish(stream, writer, names, covered)
        found.sealed, found.seal_from = header, found.behind_empty(header.last + 1)
        del found.parts[at : at + len(parts)]
        self._changed(stream)
        self.totals.seals += 1
        self.totals.sealed_bytes += header.bytes
        self._retain_at = 0.0

    async def _clear_up(self, stream: str, leftover: Leftover) -> None:
        """Removes what an interrupted compaction left.

        First writes the covering segment again: its directory may never have been synced, and if
        a sync failed, a later one would report success all the same.
        """
        writer = await self._in_thread(self._rewriter.copy, stream, leftover.first)
        await self._publish(stream, writer, [writer.plan.file_name], leftover.names)

    async def _publish(
        self, stream: str, writer: SegmentWriter, needed: Sequence[str], covered: Sequence[str]
    ) -> None:
        """Makes the segment durable under its name, then removes what it covers.

        Raises `_Outdated` if the files that it was made from, `needed`, are not all there.
        """
        try:
            async with self._committer.held(stream):
                await self._in_thread(_publish_in_place_of, writer, self._data, needed)
        except BaseException:
            writer.abort()
            raise
        pace = self._rewriter.pace.rest_or_hurry
        await self._in_thread(_remove_covered, self._data, stream, covered, pace)

    async def _in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, call, *arguments)


class _Outdated(Exception):
    """Some of the segments that were rewritten no longer exist."""


def _survey(data: Directory, stream: str, ended_before: int, damaged: Collection[int]) -> Survey:
    with data.subdirectory(stream) as directory:
        return survey(directory, ended_before, damaged)


def _publish_in_place_of(writer: SegmentWriter, data: Directory, needed: Sequence[str]) -> None:
    # If segments that it covers were dropped, publishing it would leave a hole after it.
    with data.subdirectory(writer.plan.stream) as directory:
        if not all(directory.has(name) for name in needed):
            raise _Outdated
    writer.publish()


def _remove_covered(
    data: Directory, stream: str, names: Collection[str], pace: Callable[[int], None]
) -> None:
    with data.subdirectory(stream) as directory:
        remove_covered(directory, names, pace)
