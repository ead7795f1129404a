"""Background work in the open data directory, which stops when that directory is replaced.

The compactor with its retention, the reserve, and the scans of stored bytes and free space.
"""

import asyncio
import contextlib
import os
from concurrent.futures import Executor

import structlog

from logengine.daemon.config_sections import Config
from logengine.disk.reserve import Reserve
from logengine.format.segment import Sign
from logengine.format.timestamp import format_timestamp
from logengine.intake.free_space import FreeSpace
from logengine.intake.usage_scan import UsageScan
from logengine.store.committer import Committer
from logengine.store.store import Store
from logengine.units import parse_free_space
from logengine.upkeep.clock_plan import BELIEVED_AFTER_S, KnownTime
from logengine.upkeep.compaction import CompactionTotals, Compactor
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_clock import RetentionClock
from logengine.upkeep.retention_plan import RetentionRule, RetentionRules
from logengine.upkeep.rewrite import Pace, Rewriter
from logengine.upkeep.search_filter_builder import SearchFilterBuilder

log = structlog.get_logger()

_RESERVE_RETRY_S = 60.0
_COMPACTION_RETRY_S = 5.0


class Upkeep:
    """Starts after a data directory was opened, and ends before another one is opened."""

    def __init__(
        self,
        config: Config,
        store: Store,
        committer: Committer,
        executor: Executor,
        sign: Sign | None,
        tasks: asyncio.TaskGroup,
        usage_scan: UsageScan | None,
        free_space: FreeSpace,
    ) -> None:
        self._config = config
        self._store = store
        self._committer = committer
        self._executor = executor
        self._sign = sign
        self._tasks = tasks
        self._usage_scan = usage_scan
        self._free_space = free_space
        self._compactor: Compactor | None = None
        self._holding: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._reserve: Reserve | None = None
        self._closed = False
        self.totals = CompactionTotals()

    async def begin(self) -> None:
        """Starts work in the directory that the store has open."""
        if self._closed:
            return
        self._reserve = Reserve(self._store.data, self._config.reserve)
        self._holding = self._tasks.create_task(_hold(self._reserve))
        await self._free_space.begin()
        if self._usage_scan is not None:
            try:
                await self._usage_scan.scan_all()
            except OSError as error:
                log.warning("quota_not_looked_at", error=str(error))
        if self._config.compaction.enabled and not self._closed:
            try:
                self._compact()
            except OSError as error:
                log.warning(
                    "compaction_not_begun",
                    error=str(error),
                    tried_again_every_s=_COMPACTION_RETRY_S,
                )
                self._waiting = self._tasks.create_task(self._compact_later())

    def _compact(self) -> None:
        """Starts a compactor. Raises `OSError`."""
        self._compactor = self._make_compactor()
        self._tasks.create_task(self._compactor.run())

    async def _compact_later(self) -> None:
        while self._compactor is None:
            await asyncio.sleep(_COMPACTION_RETRY_S)
            with contextlib.suppress(OSError):
                self._compact()

    async def end(self) -> None:
        """Ends all work in the directory."""
        if self._usage_scan is not None:
            self._usage_scan.forget()
        self._free_space.forget()
        await self._end_work()

    async def _end_work(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        compactor, self._compactor = self._compactor, None
        if compactor is not None:
            await compactor.stop()

    async def close(self) -> None:
        """Ends all work permanently. The reserve stays until it is released."""
        self._closed = True
        await self._end_work()

    def release_reserve(self) -> bool:
        """Releases the reserved space. Returns whether there was any."""
        return self._reserve is not None and self._reserve.release()

    def _make_compactor(self) -> Compactor:
        compaction = self._config.compaction
        data = self._store.data
        rewriter = Rewriter(
            data,
            Pace(compaction.max_rate),
            names=self._store.names,
            direct_above=self._config.commit.direct_above,
            level=compaction.level,
            sign=self._sign,
            reserve=lambda: self._free_space.shares.reserve,
        )
        rules = retention_rules(self._config, data.descriptor)
        retainer = Retainer(
            data,
            rules,
            names=self._store.names,
            clock_ns=RetentionClock(data, on_change=_report_clock).now_ns,
            is_known=self._store.may_be_trimmed,
        )
        return Compactor(
            self._store,
            self._committer,
            rewriter,
            compaction,
            self._executor,
            retainer=retainer,
            totals=self.totals,
            filters=(
                SearchFilterBuilder(data, lambda: self._free_space.shares.reserve)
                if compaction.search_filters
                else None
            ),
        )


def _report_clock(known: KnownTime) -> None:
    now = format_timestamp(max(0, known.now_ns))
    if known.is_doubted:
        # A machine that was off for a night is no reason for a warning.
        tell = log.warning if abs(known.ahead_s) > BELIEVED_AFTER_S else log.info
        tell(
            "clock_doubted",
            ahead_s=round(known.ahead_s, 1),
            ages_judged_at=now,
            believed_in_s=round(max(0.0, BELIEVED_AFTER_S - known.doubted_s)),
        )
    else:
        log.info("clock_believed", ages_judged_at=now)


def retention_rules(config: Config, data: str | int) -> RetentionRules:
    """Returns the retention rules for `data`, a path or a descriptor. Raises `OSError`."""
    retention = config.retention
    found = os.statvfs(data)
    return RetentionRules(
        max_bytes=retention.max_bytes,
        keep_free=parse_free_space(retention.keep_free, found.f_blocks * found.f_frsize),
        default=RetentionRule(max_age=retention.max_age),
        streams={name: said.retention for name, said in config.stream.items() if said.retention},
    )


def keeps_free(config: Config, size_bytes: int) -> int:
    """Returns below how much free space the rest is shared out, from the file system's size.

    If retention keeps space free, sharing begins only at half of that: senders that were stopped
    before would wait for a retention that has no reason to begin.
    """
    kept = parse_free_space(config.quota.keep_free, size_bytes)
    by_retention = parse_free_space(config.retention.keep_free, size_bytes)
    return min(kept, by_retention // 2) if by_retention else kept


async def _hold(reserve: Reserve) -> None:
    """Makes the reserve as soon as there is room for it."""
    said = False
    while True:
        try:
            if await asyncio.to_thread(reserve.hold):
                return
            reason = "less than twice its size is free"
        except OSError as error:
            reason = str(error)
        if not said:
            said = True
            log.warning("reserve_not_made", reason=reason, tried_again_every_s=_RESERVE_RETRY_S)
        await asyncio.sleep(_RESERVE_RETRY_S)
