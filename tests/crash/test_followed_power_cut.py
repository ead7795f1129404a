"""The power is cut, by model, at every point of a run that follows a file.

How far the file is stored is in the header of the segment that has its records. So whatever a cut
leaves, the position says exactly which lines there are. A daemon that starts goes on after them.
"""

import asyncio
import contextlib
import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logengine.followed_files.following import FollowedFiles
from logengine.followed_files.settings import FileConfig
from logengine.intake.server import Server
from logengine.store.committer import Committer
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from tests.crash.rig.cuts import SCRATCH, Bench
from tests.crash.rig.oracle import COMMIT, LIMITS, AtOnce, look_at
from tests.crash.rig.power_cut import Disk
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import SystemCalls
from tests.crash.rig.turns import TurnExecutor

PATIENCE_S = 60
STREAM = "app"
STEPS = 20
ROTATES_AFTER = (7, 14)
RESTARTS = 8  # of all that a cut may leave


class Program:
    """Appends lines to a file, which get longer, and rotates it."""

    def __init__(self, path: Path, source: random.Random) -> None:
        self.path = path
        self._random = source
        self.sizes: list[int] = []  # of the lines, in bytes

    def append(self, count: int) -> None:
        with self.path.open("ab") as file:
            for _ in range(count):
                line = b"%d %s\n" % (len(self.sizes) + 1, b"x" * self._random.choice([5, 50, 300]))
                self.sizes.append(len(line))
                file.write(line)

    def rotate(self) -> None:
        newest, oldest = (self.path.with_name(f"{self.path.name}.{each}") for each in (1, 2))
        if newest.exists():
            newest.rename(oldest)
        self.path.rename(newest)


@contextlib.asynccontextmanager
async def followed(data: Path, path: Path, executor: Any) -> AsyncIterator[Callable[[], int]]:
    """Follows `path`; gives a function that returns how many records were committed."""
    store = Store(data, executor, COMMIT, LIMITS)
    store.open()
    with contextlib.closing(store):
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(store, CommitConfig(), tasks)
            server = Server(store, committer, LimitsConfig(), tasks)
            files = FollowedFiles(
                [FileConfig(path=str(path), format="lines", stream=STREAM)],
                store,
                committer,
                server.around,
                data=str(data),
                open_max=10,
            )
            following = tasks.create_task(files.run())
            try:
                async with asyncio.timeout(PATIENCE_S):
                    yield lambda: committer.totals.records
            finally:
                following.cancel()
                server.close()
                await committer.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing of the daemon's reports it
        await asyncio.sleep(0.001)


async def run(data: Path, program: Program, source: random.Random, executor: Any) -> None:
    async with followed(data, program.path, executor) as records:
        for step in range(STEPS):
            program.append(source.choice([1, 2, 6]))
            if step in ROTATES_AFTER:
                program.rotate()
                program.append(1)
            if source.random() < 0.7:
                await until(lambda: records() == len(program.sizes))
        await until(lambda: records() == len(program.sizes))


async def stored_after_restart(data: Path, program: Program, stored: int) -> None:
    async with followed(data, program.path, AtOnce()) as records:
        await until(lambda: stored + records() >= len(program.sizes))


def numbers(lines: Sequence[bytes]) -> list[int]:
    return [int(line.partition(b'"message":"')[2].split(b" ")[0]) for line in lines]


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_after_any_cut_the_position_of_a_followed_file_says_which_lines_are_stored(
    seed: int,
) -> None:
    source = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="logengine-run-", dir=SCRATCH) as root,
        tempfile.TemporaryDirectory(prefix="logengine-cuts-", dir=SCRATCH) as trees,
        tempfile.TemporaryDirectory(prefix="logengine-logs-", dir=SCRATCH) as logs,
    ):
        program = Program(Path(logs, "app.log"), source)
        executor = TurnExecutor(random.Random(seed))
        calls = SystemCalls(Path(root), pause=executor.pause)
        with calls.taken(), executor.locks_taken(), capture_logs():
            asyncio.run(run(Path(root, "data"), program, source, executor))
        ends = [0, *itertools.accumulate(program.sizes)]
        bench, disk = Bench(Path(trees), []), Disk()
        seen: dict[Any, int] = {}
        for event in calls.trace:
            if not disk.apply(event):
                continue
            for tree in disk.states(source):
                key = tuple(sorted(tree.items()))
                if key in seen:
                    continue
                data = bench.make(tree) / "data"
                with contextlib.closing(Store(data, AtOnce(), COMMIT, LIMITS)) as store:
                    with capture_logs():
                        store.open()
                    positions = store.followed_files().get(STREAM, {})
                    lines = look_at(data).lines.get(STREAM, [])
                assert numbers(lines) == list(range(1, len(lines) + 1))
                assert sum(positions.values()) == ends[len(lines)], event
                seen[key] = len(lines)
        assert set(seen.values()) >= {0, len(program.sizes)}
        assert len(seen) > 25
        # Of a path of which nothing is stored, older generations are not read.
        begun = [key for key, stored in seen.items() if stored]
        for key in source.sample(begun, RESTARTS):
            data = bench.make(dict(key)) / "data"
            with capture_logs():
                asyncio.run(stored_after_restart(data, program, seen[key]))
            lines = look_at(data).lines[STREAM]
            assert numbers(lines) == list(range(1, len(program.sizes) + 1))
