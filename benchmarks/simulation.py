"""A host under a controlled clock: the engine's own parts in this process, no daemon.

Store, committer, compactor, rewriter and retainer are the daemon's, with its defaults, and so
are the disk and its syncs. Only the time comes from here.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from benchmarks.disk import Use, use_of
from logengine.daemon.allocator import keep_freed_memory
from logengine.disk.segment_file import list_streams
from logengine.format.record import Peer, envelope, peer_fields, stamp
from logengine.format.timestamp import format_timestamp
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.upkeep.compaction import CompactionTotals, Compactor
from logengine.upkeep.compaction_plan import CompactionConfig
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import RetentionRules
from logengine.upkeep.rewrite import Pace, Rewriter
from logengine.upkeep.verify import verify_stream

_COMPACTION = CompactionConfig()
_COMMIT = CommitConfig()
SILENCES_S = (_COMPACTION.seal_after, _COMPACTION.seal_small_after)


@dataclass
class Clock:
    """The time in nanoseconds after the epoch; also in seconds."""

    now_ns: int

    def __call__(self) -> float:
        return self.now_ns / 1e9


class Host:
    """Streams of one data directory, each with one sending process."""

    uid = 1000

    def __init__(
        self, data: Path, committer: Committer, compactor: Compactor | None, clock: Clock
    ) -> None:
        self._data = data
        self._committer = committer
        self._compactor = compactor
        self._clock = clock
        self._number = 0
        self._durable_at = 0.0
        self._peer_fields: dict[str, bytes] = {}

    def durable(self, number: int) -> None:
        """Receives the committer's notification for a sender."""
        self._durable_at = time.perf_counter()

    async def send(self, stream: str, lines: bytes, time_ns: int) -> float:
        """Delivers `lines` at this time; returns the seconds until they were durable."""
        self._clock.now_ns = time_ns
        fields = self._peer_fields.get(stream)
        if fields is None:
            peer = Peer(812 + len(self._peer_fields), self.uid, 1000, stream, f"{stream}.service")
            fields = self._peer_fields[stream] = peer_fields(peer)
        timestamp = format_timestamp(time_ns)
        stamped = stamp(lines, envelope(timestamp, fields))
        self._number += 1
        entry = Entry(stamped.body, stamped.records, timestamp, self._number, self)
        began = time.perf_counter()
        self._committer.add(stream, entry)
        await self._committer.drained()
        return self._durable_at - began

    async def rest(self, time_ns: int) -> None:
        """Returns when all merging, sealing and removing that is due at this time is done."""
        self._clock.now_ns = time_ns
        if self._compactor is not None:
            self._compactor.look()
            await self._compactor.idle()

    @property
    def commits(self) -> int:
        """How many batches were committed."""
        return self._committer.totals.batches

    @property
    def records(self) -> int:
        """How many records were committed."""
        return self._committer.totals.records

    @property
    def accepted_bytes(self) -> int:
        """How many bytes these have as stored."""
        return self._committer.totals.bytes

    @property
    def compacted(self) -> CompactionTotals:
        """What was merged, sealed and removed."""
        return self._compactor.totals if self._compactor else CompactionTotals()

    def uses(self) -> dict[str, Use]:
        """The disk space of each stream."""
        return {stream: use_of(self._data / stream) for stream in list_streams(self._data)}

    def check(self) -> None:
        """Raises `ValueError` unless every file is intact, and each continues the previous one."""
        for stream in list_streams(self._data):
            for finding in verify_stream(self._data / stream):
                raise ValueError(f"{stream}: {finding}")


@asynccontextmanager
async def simulated(data: Path, rules: RetentionRules | None, start_ns: int) -> AsyncIterator[Host]:
    """A host that keeps what `rules` say; without rules it neither merges nor removes anything."""
    clock = Clock(start_ns)
    keep_freed_memory()
    # A year's removals need not be logged segment by segment.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        ThreadPoolExecutor(_COMMIT.threads) as executor,
        ThreadPoolExecutor(1) as compacting,
    ):
        store = Store(data, executor)
        store.open()
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(store, _COMMIT, tasks)
            compactor = None
            if rules is not None:
                compactor = _compactor(store, committer, compacting, clock, rules)
                tasks.create_task(compactor.run())
            try:
                yield Host(data, committer, compactor, clock)
            finally:
                if compactor is not None:
                    await compactor.stop()
                await committer.close()
                store.close()


def _compactor(
    store: Store,
    committer: Committer,
    executor: ThreadPoolExecutor,
    clock: Clock,
    rules: RetentionRules,
) -> Compactor:
    rewriter = Rewriter(
        store.data,
        Pace(_COMPACTION.max_rate),
        names=store.names,
        direct_above=_COMMIT.direct_above,
        level=_COMPACTION.level,
    )
    retainer = Retainer(store.data, rules, clock_ns=lambda: clock.now_ns, names=store.names)
    return Compactor(store, committer, rewriter, _COMPACTION, executor, clock, retainer)
