"""Ensures that the daemon works only in the directory that its path currently refers to.

A volume may be mounted over the data directory or unmounted, or the directory may be moved or
removed. Then nothing is committed. Received records wait in memory, and the directory that is there
instead is recovered as at a start. Named producers are disconnected, because their numbers came
from the old directory; when they reconnect, they continue after what is durable in the new one.

The file system may be mounted again with other options: commits may then need more flushes.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping

import structlog

from logengine.daemon.upkeep import Upkeep
from logengine.errors import LogEngineError
from logengine.intake.server import Server
from logengine.store.committer import Committer
from logengine.store.store import Store
from logengine.store.stream import Recovery

log = structlog.get_logger()

_SCAN_EVERY_S = 1.0
# Options that one flush does not withstand harm the way with two flushes as well.
_LOOK_AT_FILE_SYSTEM_EVERY = 10  # scans


class DataWatch:
    """Checks the path at intervals, and when a commit found that it is another directory.

    `on_change` is called when the reason why nothing is committed changes, `report` with what
    recovery found, and `report_way` when commits take another number of flushes.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        server: Server,
        upkeep: Upkeep,
        *,
        on_change: Callable[[], None],
        report: Callable[[Mapping[str, Recovery | OSError]], None],
        report_way: Callable[[], None],
        look_every_s: float = _SCAN_EVERY_S,
    ) -> None:
        self._store = store
        self._committer = committer
        self._server = server
        self._upkeep = upkeep
        self._on_change = on_change
        self._report = report
        self._report_way = report_way
        self._told_way = store.commit_way
        self._look_every_s = look_every_s

    async def run(self) -> None:
        """Watches until it is cancelled."""
        self._store.tell_followers()
        for scan in itertools.count(1):
            if self._store.look() is not None:
                await self._recover()
                self._told_way = self._store.commit_way
            elif scan % _LOOK_AT_FILE_SYSTEM_EVERY == 0:
                self._look_at_file_system()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._store.until_unusable()

    def _look_at_file_system(self) -> None:
        self._store.look_at_file_system()
        if self._store.commit_way != self._told_way:
            self._told_way = self._store.commit_way
            self._report_way()

    async def _recover(self) -> None:
        """Waits for a directory that can be committed to, and resumes the work in it."""
        is_first = not self._store.is_open
        told = self._tell(None)
        await self._upkeep.end()
        while True:
            try:
                found = await self._store.reopen()
                break
            except (LogEngineError, OSError):
                told = self._tell(told)
            await asyncio.sleep(self._look_every_s)
        if found is None:
            log.warning("data_directory_is_back", data=str(self._store.path))
        elif is_first:
            self._report(found)
        else:
            log.warning(
                "data_directory_replaced",
                data=str(self._store.path),
                reason="the path refers to another directory; records committed before are in the "
                "old one, records that waited are committed to this one",
            )
            self._server.send_producers_away()
            self._committer.forget_producers()
            self._report(found)
        if found is not None:
            self._committer.recover(self._store.not_recovered())
            self._store.tell_followers()
        await self._upkeep.begin()
        self._committer.retry_now()
        self._on_change()

    def _tell(self, told: str | None) -> str:
        why = str(self._store.unusable)
        if why != told:
            log.error("data_directory_unusable", reason=why, looked_at_every_s=self._look_every_s)
            self._on_change()
        return why
