"""The daemon's work killed with -9 at every file-system call, and in the middle of writes.

Withstands: SIGKILL anywhere, also in the recovery after it, and in the recovery after that.
"""

import json
import subprocess
import sys

import pytest

from tests.crash.rig.seed import SEED


def kill_runs(
    first: int, seeds: int, *, threads: int, share: float, step: int = 1
) -> dict[str, int]:
    """Sweeps the runs of so many seeds in a process that can fork; how often it killed."""
    arguments = map(str, (first, seeds, threads, step, share))
    result = subprocess.run(
        [sys.executable, "-m", "tests.crash.rig.kill_points", *arguments],
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(result.stdout)
    print(f"kill points, {threads or 'drawn'} threads: {report}")
    assert report.pop("violations") == []
    return {name: int(count) for name, count in report.items()}


@pytest.mark.timeout(1200)  # a fixed amount of work, for which a busy machine takes long
@pytest.mark.parametrize("threads", [0, 2])
def test_no_kill_breaks_a_promise(threads: int) -> None:
    # Of real threads a run is never quite the same again, and a write is seldom met in its middle.
    counts = kill_runs(SEED, 2, threads=threads, share=0.02, step=4)
    assert min(counts.values()) > 0


@pytest.mark.campaign
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_no_kill_anywhere_breaks_a_promise(threads: int) -> None:
    kill_runs(SEED, 40, threads=threads, share=0.1)
