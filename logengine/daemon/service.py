"""Creates the parts of a serving daemon and connects them.

    senders -> Server -> Committer -> Store -> disk
                  ^          |
                  +-- room --+-- state changed --> Announcement

Every part receives its callbacks when it is created. `Upkeep` works in the directory that the store
has open; `DataWatch` starts and stops it.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec
import structlog

from logengine.daemon.announcement import Announcement
from logengine.daemon.config_routes import all_routes, stream_for_others
from logengine.daemon.config_sections import Config
from logengine.daemon.data_watch import DataWatch
from logengine.daemon.network_sockets import NetworkListening
from logengine.daemon.open_files import connections_and_guests, followed_files_max
from logengine.daemon.open_store import report_commit_way, report_opened
from logengine.daemon.socket_watch import SocketWatch
from logengine.daemon.sockets import Listening
from logengine.daemon.upkeep import Upkeep, keeps_free
from logengine.followed_files.following import FollowedFiles
from logengine.format.segment import Sign
from logengine.intake.free_space import FreeSpace
from logengine.intake.quota import Quotas
from logengine.intake.server import Server
from logengine.intake.space_shares import SpaceShares
from logengine.intake.usage_scan import UsageScan
from logengine.local_zone import LOCAL_ZONE
from logengine.protocols.registry import protocols
from logengine.protocols.status import serving_state
from logengine.store.committer import Committer
from logengine.store.store import Store

log = structlog.get_logger()


class Service:
    """Receives what senders send and commits it to `store`. All its tasks run in `tasks`."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        store: Store,
        compacting: Executor,
        sign: Sign | None,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._config = config
        self._store = store
        self._tasks = tasks
        self._routes = all_routes(config, LOCAL_ZONE)
        self._is_stopping = False
        self._socket_watch: asyncio.Task[None] | None = None
        quotas = _quotas(config)
        self._announcement = Announcement(environ, self._state, told=serving_state("", []))
        self._committer = Committer(
            store,
            config.commit,
            tasks,
            drops_oldest=_drops_oldest(config),
            counts_users=quotas.stored.counts_users,
            on_room=self._has_room,
            on_failing=self._fares_otherwise,
        )
        self._usage_scan: UsageScan | None = None
        if quotas.limits_space:
            self._usage_scan = UsageScan(store, self._committer, quotas, tasks, self._has_room)
        self._free_space = FreeSpace(
            store,
            self._committer,
            SpaceShares(privileged={0, os.geteuid()}),
            partial(keeps_free, config),
            tasks,
            drops_oldest=_drops_oldest(config),
            on_looked=self._has_room,
        )
        quotas.space = self._free_space
        self._upkeep = Upkeep(
            config,
            store,
            self._committer,
            compacting,
            sign,
            tasks,
            self._usage_scan,
            self._free_space,
        )
        max_connections, guests_max = connections_and_guests(config)
        self._server = Server(
            store,
            self._committer,
            msgspec.structs.replace(config.limits, max_connections=max_connections),
            tasks,
            quotas=quotas,
            report_dropped_every_s=config.quota.report_every,
            scan_soon=self._scan_soon,
            space=self._free_space.shares,
            guests_max=guests_max,
        )
        self._files: FollowedFiles | None = None
        self._following: asyncio.Task[None] | None = None
        if config.file:
            self._files = FollowedFiles(
                config.file,
                store,
                self._committer,
                self._server.around,
                data=config.data,
                open_max=followed_files_max(config),
            )
            self._server.followed_files = self._files.status
        self._watch = DataWatch(
            store,
            self._committer,
            self._server,
            self._upkeep,
            on_change=self._announcement.renew,
            report=lambda found: report_opened(store, found),
            report_way=partial(report_commit_way, store),
        )

    async def begin(self, sockets: Sequence[Listening | NetworkListening]) -> None:
        """Starts serving on `sockets`."""
        if self._store.is_open:
            self._committer.recover(self._store.not_recovered())
            await self._upkeep.begin()
        self._tasks.create_task(self._watch.run())
        for each in sockets:
            self._listen(each)
        watched = [each for each in sockets if isinstance(each, Listening)]
        self._socket_watch = self._tasks.create_task(SocketWatch(watched, self._listen_again).run())

        if self._files is not None:
            self._following = self._tasks.create_task(self._files.run())

    def _listen(self, on: Listening | NetworkListening) -> None:
        self._server.listen(
            on.listener,
            stream_for_others(on.config),
            protocols()[on.config.protocol],
            on.config.type,
            inherited=on.inherited,
            drops=isinstance(on, Listening) and on.config.on_pressure == "drop",
            network=on.network if isinstance(on, NetworkListening) else None,
            routes=self._routes[on.config],
        )

    def _listen_again(self, before: socket.socket, on: Listening) -> None:
        self._server.listen_no_more(before)
        self._listen(on)

    def listen_no_more(self) -> None:
        """Stops restoring removed socket files: they are about to be removed on purpose."""
        if self._socket_watch is not None:
            self._socket_watch.cancel()

    async def stop(self) -> None:
        """Stops serving. Returns when all that was sent is durable, or after `stop_timeout`."""
        self._announcement.close()
        if self._following is not None:
            self._following.cancel()  # the next daemon reads on
        await self._upkeep.close()
        # Commits that fail only from now on, with the last records received, may use it too.
        self._is_stopping = True
        self._use_reserve()
        try:
            async with asyncio.timeout(self._config.stop_timeout):
                await self._server.stop()
        except TimeoutError:
            log.error("stop_timeout", stop_timeout_s=self._config.stop_timeout)
        self._server.close()
        if self._usage_scan is not None:
            self._usage_scan.close()
        self._free_space.close()
        dropped = await self._committer.close()
        if dropped:
            log.error("records_dropped", records=dropped, reason="not durable in time, never acked")

    def totals(self) -> dict[str, int]:
        """Returns the totals since the start, which the log reports at the end."""
        committed, came, compacted = (
            self._committer.totals,
            self._server.totals,
            self._upkeep.totals,
        )
        return {
            "records": committed.records,
            "bytes": committed.bytes,
            "batches": committed.batches,
            "failed_commits": committed.failures,
            "connections": came.connections,
            "refused_records": came.refused,
            "merges": compacted.merges,
            "seals": compacted.seals,
            "segments_removed": compacted.removed,
            "rewritten_bytes": compacted.merged_bytes + compacted.sealed_bytes,
        }

    def _state(self) -> str:
        return serving_state(str(self._store.unusable or ""), self._committer.failing())

    def _scan_soon(self) -> None:
        if self._usage_scan is not None:
            self._usage_scan.scan_soon()
        self._free_space.look_soon()

    def _has_room(self) -> None:
        self._server.room()

    def _fares_otherwise(self) -> None:
        if self._is_stopping:
            self._use_reserve()
        else:
            self._announcement.renew()

    def _use_reserve(self) -> None:
        if self._committer.lacks_space() and self._upkeep.release_reserve():
            log.warning("reserve_released", reason="the disk is full, and received records wait")
            asyncio.get_running_loop().call_soon(self._committer.retry_now)


def _drops_oldest(config: Config) -> Callable[[str], bool]:
    """Returns a function: whether a full disk removes the oldest segments of a stream."""
    said = {name: stream.on_full for name, stream in config.stream.items() if stream.on_full}
    return lambda stream: said.get(stream, config.on_full) == "drop_oldest"


def _quotas(config: Config) -> Quotas:
    return Quotas(
        config.quota.stream,
        config.quota.uid,
        {name: stream.quota for name, stream in config.stream.items() if stream.quota},
        {int(uid): user.quota for uid, user in config.uid.items() if user.quota},
    )
