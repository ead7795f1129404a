"""The engine at work on a disk that is cut off at the level of its blocks.

A server with its committer, compactor and a follower, and producers that keep what they were
promised, as in `workload`, on real threads. After a cut, recovery begins on what is left.
"""

import asyncio
import functools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

from structlog.testing import capture_logs

from logengine.disk.commit_way import CommitWay
from logengine.disk.directory import Directory
from logengine.disk.file_system import commit_way_at
from logengine.disk.one_flush import OneFlushWriter
from logengine.store import store
from tests.crash.rig import oracle, workload
from tests.crash.rig.block_cuts import Done, Position
from tests.crash.rig.oracle import Promises

_PATIENCE_S = 120
_THREADS = (1, 2, 4)
_STREAMS = 3
_RECORDS = 150  # of each producer, at most


def serve(mounted: Path, seed: int, position: Position, *, flushes: int) -> Done:
    """Serves until all producers have their acks.

    With one flush, commits go the way that the engine chooses for the disk; it must be that one.
    """
    plan = workload.Plan.drawn(
        seed, streams=_STREAMS, records=_RECORDS, follows=False, one_flush=flushes == 1
    )
    noted: list[tuple[int, object]] = []
    lock = threading.Lock()

    def note(event: object) -> None:
        with lock:
            noted.append((position(), event))

    chosen = []

    def choose(directory: Directory) -> CommitWay:
        chosen.append(commit_way_at(directory) if flushes == 1 else CommitWay(2, "two are tried"))
        return chosen[-1]

    begun = _Counter()
    with (
        ThreadPoolExecutor(random.Random(seed).choice(_THREADS)) as executor,
        patch.object(store, "commit_way_at", choose),
        patch.object(OneFlushWriter, "publish", begun.counting(OneFlushWriter.publish)),
        capture_logs(),
    ):
        run = workload.run(mounted / "data", plan, executor, note)
        asyncio.run(asyncio.wait_for(run, _PATIENCE_S))
    assert [way.flushes for way in chosen] == [flushes], chosen
    assert begun.with_one_flush or flushes != 1
    return Done(begun.commits, functools.partial(_violations, plan, noted))


Publish = Callable[[OneFlushWriter], None]


class _Counter:
    """Counts publications."""

    def __init__(self) -> None:
        self.commits = 0
        self.with_one_flush = 0

    def counting(self, publish: Publish) -> Publish:
        """`publish`, counted."""

        def counted(writer: OneFlushWriter) -> None:
            self.commits += 1
            self.with_one_flush += writer._is_unflushed
            publish(writer)

        return counted


def _violations(
    plan: workload.Plan, noted: list[tuple[int, object]], mounted: Path, position: int
) -> Iterator[str]:
    promises = Promises()
    for at, event in noted:
        if at <= position:
            promises.take(event)
    if not (mounted / "data").exists():
        if promises.durable and max(promises.durable.values()):
            yield "the data directory is gone"
        return
    yield from promises.broken_by(oracle.recover(mounted / "data", plan.bursts))
