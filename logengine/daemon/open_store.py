"""Opens the daemon's store as far as the disk allows, and logs the result."""

import contextlib
import errno
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from logengine.daemon.config_sections import Config
from logengine.errors import DataDirectoryIncomplete
from logengine.store.store import Store
from logengine.store.stream import Recovery
from logengine.store.stream_events import report_recovery

log = structlog.get_logger()

# Errors that may pass once the disk recovers or is mounted. Any other is a mistake to be fixed.
_PASSING = {
    *(errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EUCLEAN, errno.ESHUTDOWN),
    *(errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN),
}


@contextlib.contextmanager
def opened_store(
    config: Config, executor: ThreadPoolExecutor, small_executor: ThreadPoolExecutor
) -> Iterator[Store]:
    """Opens the store until the block ends. Marks it `unusable` if the disk may come back.

    Raises `LogEngineError` and `OSError` if it cannot be opened for another reason.
    """
    store = Store(
        Path(config.data), executor, config.commit, config.limits, small_executor=small_executor
    )
    started = time.perf_counter()
    try:
        recovered = store.open()
    except (DataDirectoryIncomplete, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _PASSING:
            raise
        # Start anyway: what senders send is kept in memory meanwhile, and the status says so.
        store.unusable = error
        recovered = {}
    try:
        if store.is_open:
            report_opened(store, recovered, time.perf_counter() - started)
        yield store
    finally:
        store.close()


def report_commit_way(store: Store) -> None:
    """Logs how many flushes a commit takes, and why."""
    way = store.commit_way
    log.info("commit_flushes", data=str(store.path), flushes=way.flushes, reason=way.reason)


def report_opened(
    store: Store, found: Mapping[str, Recovery | OSError], took_s: float | None = None
) -> None:
    """Logs what recovery found in the directory that `store` has open."""
    for risk in store.risks:
        log.warning("file_system_not_safe", data=str(store.path), reason=risk)
    report_commit_way(store)
    recovered = []
    for stream, recovery in found.items():
        if not isinstance(recovery, OSError):  # the committer reports and retries those
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
