"""A process killed at its N-th file-system call, for every N.

Run as `python -m tests.crash.rig.kill_points FIRST_SEED SEEDS THREADS STEP SHARE`: it has one
thread, so that it can fork a process for each point. With 0 threads the order of the calls is drawn
from the seed, with more it is as it comes. After each kill the data is recovered and held
against what was promised; after a share of them each recovery is itself killed at one of STEP
of its calls, drawn, and recovered from.
"""

import asyncio
import copy
import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from structlog.testing import capture_logs

from tests.crash.rig import oracle, workload
from tests.crash.rig.cuts import SCRATCH
from tests.crash.rig.oracle import Promises
from tests.crash.rig.system_calls import Attempt, Gate, SystemCalls
from tests.crash.rig.turns import TurnExecutor

_RETAINS_EVERY = 8  # of the seeds


@dataclass
class KillReport:
    """How often a process was killed, and what went wrong."""

    kills: int = 0
    torn_writes: int = 0
    kills_in_recovery: int = 0
    violations: list[str] = field(default_factory=list)


class _Killed(NamedTuple):
    """The last thing that is heard of a process: the call that it did not get to make."""

    call: str
    wrote_half: bool


@dataclass(frozen=True)
class _Kill:
    """Ends the process at call `at`; a write is `torn` after so many bytes, and then it ends."""

    at: int
    torn: int | None = None

    def gate(self, note: Callable[[Any], None]) -> Gate:
        """The gate that does it, and tells `note` just before."""
        wrote_half = False

        def gate(attempt: Attempt) -> int | None:
            nonlocal wrote_half
            if attempt.number < self.at:
                return None
            if attempt.number == self.at and self.torn is not None and attempt.call == "write":
                wrote_half = True
                return self.torn
            note(_Killed(attempt.call, wrote_half))
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("not reached")

        return gate


def in_a_process(root: Path, work: Callable[[Callable[[Any], None]], None]) -> list[Any]:
    """Runs `work` in a fork, which notes what it wants to survive it; gives that."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            work(lambda event: _write_all(writing, pickle.dumps(event)))
            status = 0
        except BaseException:  # noqa: BLE001 - nothing of the parent's is to run here
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as journal:
        content = journal.read()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"the process on {root} failed")
    return list(_unpickled(content))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _unpickled(content: bytes) -> Iterator[Any]:
    file = io.BytesIO(content)
    while True:
        try:
            yield pickle.load(file)
        except (EOFError, pickle.UnpicklingError):
            return  # the last one may be half, and then promised nothing yet


def _work(root: Path, plan: workload.Plan, threads: int, kill: _Kill) -> list[Any]:
    def work(note: Callable[[Any], None]) -> None:
        turns = TurnExecutor(random.Random(plan.seed))
        executor: Executor = ThreadPoolExecutor(threads) if threads else turns
        locks = nullcontext() if threads else turns.locks_taken()
        calls = SystemCalls(root, gate=kill.gate(note), pause=turns.pause)
        with calls.taken(), locks, capture_logs():
            asyncio.run(workload.run(root / "data", plan, executor, note))

    return in_a_process(root, work)


def _recovery(root: Path, plan: workload.Plan, kill: _Kill) -> list[Any]:
    def work(note: Callable[[Any], None]) -> None:
        paths = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        names = {path: number for number, path in enumerate(paths, start=1)}
        calls = SystemCalls(root, names=names, inode=len(names) + 1, gate=kill.gate(note))
        with calls.taken():
            oracle.recover(root / "data", plan.bursts, note, plan.make_retainer)

    return in_a_process(root, work)


def _killed(events: list[Any]) -> _Killed | None:
    return next((event for event in reversed(events) if isinstance(event, _Killed)), None)


def sweep(plan: workload.Plan, threads: int, share: float, step: int = 1) -> KillReport:
    """Kills runs of `plan` at every call.

    After a `share` of them recoveries too, at one of `step` calls on average.
    """
    report = KillReport()
    source = random.Random(plan.seed)
    with tempfile.TemporaryDirectory(prefix="logengine-kills-", dir=SCRATCH) as scratch:
        place = Path(scratch)
        at = 0
        last_call = ""
        while True:
            at += 1
            for torn in (None, source.randint(0, 300)):
                if torn is not None and last_call != "write":
                    continue
                root = place / f"{at}-{torn}"
                root.mkdir()
                events = _work(root, plan, threads, _Kill(at, torn))
                killed = _killed(events)
                if killed is None:
                    return report
                last_call = killed.call
                report.kills += 1
                report.torn_writes += killed.wrote_half
                promises = Promises()
                for event in events:
                    promises.take(event)
                what = f"seed {plan.seed}, {threads} threads, kill at call {at}, torn {torn}"
                if source.random() < share:
                    _sweep_recovery(root, plan, promises, report, what, step)
                found = oracle.recover(root / "data", plan.bursts, make_retainer=plan.make_retainer)
                report.violations += [f"{what}: {each}" for each in promises.broken_by(found)]
                shutil.rmtree(root)
                if report.violations:
                    return report


def _sweep_recovery(
    root: Path,
    plan: workload.Plan,
    promises: Promises,
    report: KillReport,
    what: str,
    step: int,
) -> None:
    source = random.Random(what)
    at = 0
    while True:
        at += source.randrange(1, 2 * step)
        again = root.with_name("again")
        shutil.copytree(root, again)
        events = _recovery(again, plan, _Kill(at))
        told = copy.deepcopy(promises)
        for event in events:
            told.take(event)
        found = oracle.recover(again / "data", plan.bursts, make_retainer=plan.make_retainer)
        shutil.rmtree(again)
        report.violations += [
            f"{what}, recovery killed at call {at}: {each}" for each in told.broken_by(found)
        ]
        if _killed(events) is None or report.violations:
            return
        report.kills_in_recovery += 1


def main(first: int, seeds: int, threads: int, share: float, step: int) -> KillReport:
    """Sweeps the runs of so many seeds, until a promise is broken."""
    total = KillReport()
    for seed in range(first, first + seeds):
        plan = workload.Plan.drawn(seed, records=6)
        if seed % _RETAINS_EVERY == 5:
            plan = workload.Plan.drawn(seed, streams=1, records=10, retains=True)
        report = sweep(plan, threads, share, step)
        total.kills += report.kills
        total.torn_writes += report.torn_writes
        total.kills_in_recovery += report.kills_in_recovery
        total.violations += report.violations
        if total.violations:
            break
    return total


if __name__ == "__main__":
    first_seed, seed_count, thread_count, recovery_step = map(int, sys.argv[1:5])
    recovered_share = float(sys.argv[5])
    killed = main(first_seed, seed_count, thread_count, recovered_share, recovery_step)
    print(json.dumps(asdict(killed)))
