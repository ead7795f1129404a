"""The life of the process: lock, recover, listen, tell systemd, serve, drain, stop."""

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import Signals

import structlog
import uvloop

from logengine.daemon.allocator import keep_freed_memory
from logengine.daemon.config_sections import Config
from logengine.daemon.network_sockets import NetworkListening, read_certificates_again
from logengine.daemon.open_files import allow_open_files
from logengine.daemon.open_store import opened_store
from logengine.daemon.service import Service
from logengine.daemon.signals import early_signals, ignore_until_served, stop_signals
from logengine.daemon.sockets import Listening, listening, remove_paths
from logengine.daemon.systemd import notify
from logengine.format.segment import Sign
from logengine.store.store import Store

log = structlog.get_logger()

# Not higher: if all cores are busy, this thread may hold the interpreter's lock while it waits for
# a core. With two busy loops next to the daemon, the p99 of a commit was 18 ms with 10, and 11 ms
# with 5 and with 0.
_COMPACTION_NICE = 5
# For commits of users with little, while those of users with much keep the other threads busy.
_SMALL_THREADS = 2


def run_daemon(config: Config, environ: Mapping[str, str]) -> None:
    """Runs until a signal stops it; returns when all that was received is durable.

    If the disk fails in a way that may pass, the daemon still starts, and waits for it. Raises
    `LogEngineError` and `OSError` if it cannot start.
    """
    stops_with_terminal = ignore_until_served()
    keep_freed_memory()
    allow_open_files(config)
    sign = _signer(config.compaction.seal_key)
    with (
        ThreadPoolExecutor(config.commit.threads, "commit") as executor,
        ThreadPoolExecutor(_SMALL_THREADS, "commit-small") as small_executor,
        ThreadPoolExecutor(1, "compact", _step_back) as compacting,
        opened_store(config, executor, small_executor) as store,
        early_signals() as received,
        listening(config, environ) as sockets,
    ):
        uvloop.run(
            serve(
                *(config, environ, store, compacting, sign, sockets),
                stops_with_terminal=stops_with_terminal,
                received=received,
            )
        )


async def serve(
    config: Config,
    environ: Mapping[str, str],
    store: Store,
    compacting: ThreadPoolExecutor,
    sign: Sign | None,
    sockets: Sequence[Listening | NetworkListening],
    *,
    stops_with_terminal: bool = False,
    received: Sequence[Signals] = (),
) -> None:
    """Serves on `sockets` until a signal stops it, and commits what was sent by then."""
    started = time.monotonic()
    stopping = stop_signals(
        stops_with_terminal=stops_with_terminal,
        reload=partial(read_certificates_again, sockets),
        received=received,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            service = Service(config, environ, store, compacting, sign, tasks)
            await service.begin(sockets)
            gc.freeze()  # objects that live as long as the process need no further collection
            log.info("listening", sockets=[each.name for each in sockets])
            notify("READY=1\nSTATUS=Serving", environ)
            log.info("stopping", signal=(await stopping).name)
            notify("STOPPING=1\nSTATUS=Committing what was received", environ)
            service.listen_no_more()
            remove_paths(sockets)
            await service.stop()
            served_s = round(time.monotonic() - started, 1)
            log.info("stopped", **service.totals(), served_s=served_s)
            raise _Stopped
    except* _Stopped:
        pass


class _Stopped(Exception):
    """Cancels the tasks that still wait, such as a welcome for a failing stream."""


def _step_back() -> None:
    """Lowers the CPU priority of this thread, if that is allowed."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, nice + _COMPACTION_NICE)


def _signer(seal_key: str) -> Sign | None:
    if not seal_key:
        return None
    from logengine.upkeep.signing import load_signer  # slower to import than all the rest

    return load_signer(Path(seal_key))
