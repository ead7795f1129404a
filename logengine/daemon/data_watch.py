"""Sees to it that the daemon works in the directory that its path means, and in no other.

A volume may be mounted over the data directory, unmounted, or somebody may move or remove it.
Then nothing is committed. What was received waits in memory, and what is there instead is
recovered as at a start; a named producer is sent away, for its numbers were told from the old
directory, and comes back to what is durable in the new one.
"""

import asyncio
import contextlib
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


class DataWatch:
    """Looks at the path now and then, and whenever a commit found it to be another directory.

    `on_change` is called whenever it is another story why nothing is committed, and `report`
    with what recovery found.
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
        look_every_s: float = _SCAN_EVERY_S,
    ) -> None:
        self._store = store
        self._committer = committer
        self._server = server
        self._upkeep = upkeep
        self._on_change = on_change
        self._report = report
        self._look_every_s = look_every_s

    async def run(self) -> None:
        """Watches for ever."""
        self._store.tell_followers()
        while True:
            if self._store.look() is not None:
                await self._recover()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._store.until_unusable()

    async def _recover(self) -> None:
        """Returns when there is a directory again that can be committed to."""
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
                reason="the path means another directory; what was committed before is in the "
                "old one, and what was not is committed to this one",
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
