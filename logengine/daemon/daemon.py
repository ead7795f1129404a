"""The life of the process: lock, recover, listen, tell systemd, serve, drain, stop."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
import uvloop

from logengine.daemon.allocator import keep_freed_memory
from logengine.daemon.config_sections import Config
from logengine.daemon.data_watch import DataWatch
from logengine.daemon.socket_watch import ListeningSocket, SocketWatch
from logengine.daemon.systemd import notify, passed_listeners
from logengine.daemon.upkeep import Upkeep
from logengine.errors import ConfigError, DataDirectoryIncomplete
from logengine.format.segment import Sign
from logengine.intake.quota import Quotas
from logengine.intake.quota_looks import QuotaLooks
from logengine.intake.server import Server, ServerLimits
from logengine.protocols.status import serving_state
from logengine.store.committer import CommitLimits, Committer
from logengine.store.store import Store, StoreLimits
from logengine.store.stream import Recovery
from logengine.store.stream_log import report_recovery

log = structlog.get_logger()

_ANNOUNCE_PAUSE_S = 0.2
_OTHER_DESCRIPTORS = 128  # commit threads' files, listeners, the loop's own
# What a disk, or who mounts it, may get over; anything else is a mistake to be mended.
_PASSING = {
    *(errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EUCLEAN, errno.ESHUTDOWN),
    *(errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN),
}
# No more: on a machine with all cores busy it may hold the interpreter's lock while it waits
# for one. With 10, two loops beside made the p99 of a commit 18 ms, with 5 and 0 it was 11.
_COMPACTION_NICE = 5


def run_daemon(config: Config, environ: Mapping[str, str]) -> None:
    """Runs until SIGTERM or SIGINT; returns when all that was received is durable.

    Where the disk may be about to fail or to come back it starts all the same, and waits. Raises
    `LogEngineError` and `OSError` if it cannot start.
    """
    keep_freed_memory()
    _allow_descriptors(config)
    sign = _signer(config.compaction.seal_key)
    with (
        ThreadPoolExecutor(config.commit.threads, "commit") as executor,
        ThreadPoolExecutor(1, "compact", _step_back) as compacting,
        _opened_store(config, executor) as store,
        _listening(config, environ) as sockets,
    ):
        uvloop.run(_serve(config, environ, store, compacting, sign, sockets))


def _step_back() -> None:
    """Has this thread wait for the others where the CPU is short, if that is allowed."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, nice + _COMPACTION_NICE)


def _connections_max(config: Config) -> int:
    """How many connections the limit of open files leaves room for, `max_connections` at most.

    Without some for itself the daemon could commit nothing, and nobody would ever hang up.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    configured = config.limits.max_connections
    if limit == resource.RLIM_INFINITY:
        return configured
    room = max(1, limit - min(_OTHER_DESCRIPTORS, limit // 2))
    if room < configured:
        log.warning(
            "max_connections_lowered",
            max_connections=room,
            configured=configured,
            reason=f"the limit of open files is {limit}",
        )
    return min(room, configured)


def _allow_descriptors(config: Config) -> None:
    """Raises the soft limit of open files to what `max_connections` takes, where allowed."""
    wanted = config.limits.max_connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def _opened_store(config: Config, executor: ThreadPoolExecutor) -> Iterator[Store]:
    store = Store(
        Path(config.data),
        executor,
        StoreLimits(
            rewrite_limit=config.commit.rewrite_limit,
            direct_above=config.commit.direct_above,
            threads=config.commit.threads,
            max_producers=config.limits.max_producers,
            max_users=config.limits.max_users,
            max_streams=config.limits.max_streams,
            active_cache=config.limits.active_cache,
        ),
    )
    started = time.perf_counter()
    try:
        recovered = store.open()
    except (DataDirectoryIncomplete, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _PASSING:
            raise
        # Senders wait, and are told so, and what they send is kept meanwhile.
        store.unusable = error
        recovered = {}
    try:
        if store.is_open:
            _report(store, recovered, time.perf_counter() - started)
        yield store
    finally:
        store.close()


def _report(
    store: Store, found: Mapping[str, Recovery | OSError], took_s: float | None = None
) -> None:
    for risk in store.risks:
        log.warning("file_system_not_safe", data=str(store.path), reason=risk)
    recovered = []
    for stream, recovery in found.items():
        if not isinstance(recovery, OSError):  # else it is the committer's to tell, and to try
            recovered.append(recovery)
            report_recovery(stream, recovery)
    log.info(
        "recovered",
        data=str(store.path),
        streams=len(recovered),
        not_recovered=len(found) - len(recovered),
        records=sum(recovery.records for recovery in recovered),
        segments=sum(recovery.segments for recovery in recovered),
        temps_removed=sum(recovery.temps_removed for recovery in recovered),
        covered_removed=sum(recovery.covered_removed for recovery in recovered),
        damaged=sum(len(recovery.damaged) for recovery in recovered),
        took_ms=None if took_s is None else round(took_s * 1000, 1),
    )


@contextlib.contextmanager
def _listening(config: Config, environ: Mapping[str, str]) -> Iterator[list[ListeningSocket]]:
    """The sockets of the configuration: those that systemd passed, and the others made here."""
    passed = {
        os.path.realpath(listener.getsockname()): listener
        for listener in passed_listeners(environ, os.getpid())
    }
    sockets: list[ListeningSocket] = []
    try:
        for listen in config.listen:
            path, mode, stream = Path(listen.path), listen.mode, listen.stream
            inherited = passed.pop(os.path.realpath(path), None)
            sockets.append(
                ListeningSocket.bound(path, mode, stream)
                if inherited is None
                else ListeningSocket(inherited, path, mode, stream, is_inherited=True)
            )
        if passed:
            raise ConfigError(
                f"systemd passed a socket at {', '.join(passed)}, which no [[listen]] names; "
                "add one with that path, or change the socket unit"
            )
        yield sockets
    finally:
        for each in sockets:
            each.remove()
            each.listener.close()


def _signer(seal_key: str) -> Sign | None:
    if not seal_key:
        return None
    from logengine.upkeep.signing import load_signer  # takes longer to load than all the rest

    return load_signer(Path(seal_key))


async def _serve(
    config: Config,
    environ: Mapping[str, str],
    store: Store,
    compacting: ThreadPoolExecutor,
    sign: Sign | None,
    sockets: list[ListeningSocket],
) -> None:
    started = time.monotonic()
    stopping = _stop_signals()
    quotas = _quotas(config)
    try:
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(
                store,
                CommitLimits(
                    linger=config.commit.linger,
                    max_batch=config.commit.max_batch,
                    pipeline_bytes=config.commit.pipeline_bytes,
                    in_loop_below=config.commit.in_loop_below,
                    retry_min=config.commit.retry_min,
                    retry_max=config.commit.retry_max,
                ),
                tasks,
                drops_oldest=_drops_oldest(config),
                counts_users=quotas.stored.counts_users,
            )
            looks = None
            if quotas.limits_space:
                looks = QuotaLooks(store, committer, quotas, tasks)
            upkeep = Upkeep(config, store, committer, compacting, sign, tasks, looks)
            server = Server(
                store,
                committer,
                ServerLimits(
                    max_record=config.limits.max_record,
                    max_pending=config.limits.max_pending,
                    max_pending_stream=config.limits.max_pending_stream,
                    max_connections=_connections_max(config),
                    stall_timeout=config.limits.stall_timeout,
                    report_dropped_every=config.quota.report_every,
                ),
                tasks,
                quotas=None if quotas.limits_nothing else quotas,
                looks=looks,
            )
            announcement = _Announcement(store, committer, environ)
            committer.on_failing = announcement.renew
            committer.on_room = server.room
            if store.is_open:
                committer.recover(store.not_recovered())
                await upkeep.begin()
            watch = DataWatch(
                store,
                committer,
                server,
                upkeep,
                on_change=announcement.renew,
                report=lambda found: _report(store, found),
            )
            tasks.create_task(watch.run())
            for each in sockets:
                server.listen(each.listener, each.stream, inherited=each.is_inherited)
            socket_watch = tasks.create_task(SocketWatch(sockets, server.listen_instead).run())
            gc.freeze()  # what lives as long as the process need not be looked at again
            log.info("listening", sockets=[str(each.path) for each in sockets])
            notify("READY=1\nSTATUS=Serving", environ)
            log.info("stopping", signal=(await stopping).name)
            notify("STOPPING=1\nSTATUS=Committing what was received", environ)
            socket_watch.cancel()
            for each in sockets:
                each.remove()
            announcement.close()
            await upkeep.close()
            compacted = upkeep.totals
            await _stop(config, server, committer, upkeep)
            log.info(
                "stopped",
                records=committer.totals.records,
                bytes=committer.totals.bytes,
                batches=committer.totals.batches,
                failed_commits=committer.totals.failures,
                connections=server.totals.connections,
                refused_records=server.totals.refused,
                merges=compacted.merges,
                seals=compacted.seals,
                segments_removed=compacted.removed,
                rewritten_bytes=compacted.merged_bytes + compacted.sealed_bytes,
                served_s=round(time.monotonic() - started, 1),
            )
            raise _Stopped
    except* _Stopped:
        pass


def _drops_oldest(config: Config) -> Callable[[str], bool]:
    """Whether a full disk takes the oldest segments of a stream."""
    said = {name: stream.on_full for name, stream in config.stream.items() if stream.on_full}
    return lambda stream: said.get(stream, config.on_full) == "drop_oldest"


def _quotas(config: Config) -> Quotas:
    return Quotas(
        config.quota.stream.quota(),
        config.quota.uid.quota(),
        {name: stream.quota.quota() for name, stream in config.stream.items() if stream.quota},
        {int(uid): user.quota.quota() for uid, user in config.uid.items() if user.quota},
    )


class _Announcement:
    """Tells the service manager how the streams fare, whenever that is another story."""

    def __init__(self, store: Store, committer: Committer, environ: Mapping[str, str]) -> None:
        self._store = store
        self._committer = committer
        self._environ = environ
        self._told = serving_state("", [])
        self._timer: asyncio.TimerHandle | None = None

    def renew(self) -> None:
        """Has it told in a moment, for of a full disk thousands of streams fail at once."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_ANNOUNCE_PAUSE_S, self._tell)

    def close(self) -> None:
        """Tells nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        state = serving_state(str(self._store.unusable or ""), self._committer.failing())
        if state != self._told:
            self._told = state
            notify(f"STATUS={state}", self._environ)


async def _stop(config: Config, server: Server, committer: Committer, upkeep: Upkeep) -> None:
    loop = asyncio.get_running_loop()

    def use_reserve() -> None:
        if committer.lacks_space() and upkeep.release_reserve():
            log.warning("reserve_released", reason="the disk is full, and received records wait")
            loop.call_soon(committer.retry_now)

    # Also what fails only now, as the last of what was sent is taken.
    committer.on_failing = use_reserve
    use_reserve()
    try:
        async with asyncio.timeout(config.stop_timeout):
            await server.stop()
    except TimeoutError:
        log.error("stop_timeout", stop_timeout_s=config.stop_timeout)
    server.close()
    dropped = await committer.close()
    if dropped:
        log.error("records_dropped", records=dropped, reason="not durable in time, never acked")


class _Stopped(Exception):
    """Ends the tasks that still wait for something, such as a hello for a failing stream."""


def _stop_signals() -> asyncio.Future[signal.Signals]:
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(received: signal.Signals) -> None:
        if not stopping.done():
            stopping.set_result(received)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping
