"""Runs of the workload under the recorder, on the disk or in memory."""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from structlog.testing import capture_logs

from logengine.store import store
from tests.crash.rig import workload
from tests.crash.rig.cuts import SCRATCH
from tests.crash.rig.system_calls import Gate, SystemCalls, let_through
from tests.crash.rig.turns import TurnExecutor

PATIENCE_S = 60


@contextlib.contextmanager
def recorded(
    plan: workload.Plan,
    *,
    gate: Gate = let_through,
    note: Callable[[Any], None] = lambda _: None,
) -> Iterator[SystemCalls]:
    """The calls of one run of `plan`; what is on the disk then is there until the block ends.

    Raises what ended the run, `TimeoutError` where it went on for ever.
    """
    with tempfile.TemporaryDirectory(prefix="logengine-run-", dir=SCRATCH) as root:
        executor = TurnExecutor(random.Random(plan.seed))
        calls = SystemCalls(Path(root), gate=gate, pause=executor.pause)

        def noted(event: Any) -> None:
            calls.note(event)
            note(event)

        async def run() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await workload.run(Path(root, "data"), plan, executor, noted)

        way = patch.object(store, "commit_way_at", lambda _: plan.commit_way())
        with way, calls.taken(), executor.locks_taken(), capture_logs():
            asyncio.run(run())
        yield calls
