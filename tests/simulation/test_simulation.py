"""Tests the simulation itself: it is reproducible, finds what is wrong, and nothing else."""

import asyncio
import errno
import multiprocessing
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from unittest.mock import patch

import pytest
from msgspec import structs

from logengine.store.committer import Committer
from logengine.store.store import Store
from tests.simulation import Violation, search
from tests.simulation.__main__ import FIXED_SEED, seed_of_commit
from tests.simulation.calls import Fault
from tests.simulation.clock import Kernel, Process, Thread
from tests.simulation.loop import SimulatedLoop
from tests.simulation.scenario import Event, Scenario
from tests.simulation.search import Found, Outcome, explore, run
from tests.simulation.shrink import Kept, shrink

_SLICE_RUNS = 60
_SLICE_S = 60.0
_SEARCH_S = 500.0  # far more than it takes, for a busy machine


def explore_apart(seconds: float, seed: int, runs: int = 1 << 60) -> Outcome:
    """Like `explore`, in a process without leftovers of other tests.

    Uses the hashes of `python -m tests.simulation`: its `--replay` reproduces the run.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONHASHSEED", "0")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(explore, seconds, seed, runs=runs).result()


def mend_taken_out():
    """Restores the old bug: a batch checks only the one right before it, and no plan's state."""

    def last(self, _streams):
        return [self._under_way[-1].done] if self._under_way else []

    outdated = Store._outdated

    def only_in_the_batch_before(self, planned):
        # What the previous batch did not contain is treated as durable.
        return outdated(self, planned) if self._failed_last(planned.before.stream) else None

    def failed_last(self, stream):
        return stream in getattr(self, "_last_failed", ())

    settle = Store._settle

    def noting(self, planned, failed):
        settle(self, planned, failed)
        self._last_failed = set(failed)

    return (
        patch.object(Committer, "_last_under_way", last),
        patch.object(Store, "_outdated", only_in_the_batch_before),
        patch.object(Store, "_failed_last", failed_last, create=True),
        patch.object(Store, "_settle", noting),
    )


def test_the_loss_is_found_where_its_mend_is_taken_out():
    one, two, three, four = mend_taken_out()
    with one, two, three, four:
        violation = search(_SEARCH_S, seed=FIXED_SEED)
    assert violation is not None
    # Whichever comes first: the hole itself, or the engine's own check, which ends the daemon.
    assert violation.what.endswith("is shutting down')") or violation.rule in (
        "hole",
        "acknowledged and not durable",
        "lost",
        "stuck",
        "the daemon ended",
    )


def test_a_run_of_the_same_seed_is_the_same_again():
    for seed in range(3):
        _, first = run(Scenario.drawn(seed))
        _, again = run(Scenario.drawn(seed))
        assert first.log == again.log
        assert vars(first.counts) == vars(again.counts)


def test_runs_from_a_fixed_seed_break_no_promise():
    outcome = explore_apart(_SEARCH_S, FIXED_SEED, runs=_SLICE_RUNS)
    assert outcome.found is None, str(outcome.found)
    assert outcome.counts.commits
    assert outcome.counts.kills
    assert outcome.counts.cuts
    assert outcome.counts.failures
    assert outcome.counts.out_of_time
    assert outcome.counts.over_quota
    assert outcome.counts.removed


def test_a_stop_commits_what_was_received_where_the_socket_cannot_be_removed():
    drawn = Scenario.drawn(0)
    read_only = Fault(0, frozenset({"unlink"}), "", 0.0, drawn.ends_s, errno=errno.EROFS)
    scenario = replace(
        drawn,
        faults=(read_only,),
        spaces=(),
        events=tuple(Event(drawn.ends_s * part, "stop") for part in (0.1, 0.3, 0.6)),
        inherits_listener=False,
    )
    violation, world = run(scenario)
    assert violation is None
    assert world.counts.stops


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [FIXED_SEED, seed_of_commit()], ids=["fixed", "of the commit"])
def test_a_minute_from_a_seed_breaks_no_promise(seed):
    outcome = explore_apart(_SLICE_S, seed)
    assert outcome.found is None, str(outcome.found)


def test_a_disk_that_does_not_tell_its_size_ends_no_daemon():
    drawn = Scenario.drawn(0)
    # The first call checks whether it is read-only, and belongs to opening the directory.
    untold = Fault(0, frozenset({"statvfs"}), "", 0.0, drawn.ends_s, errno=errno.EIO, skips=1)
    compaction = structs.replace(drawn.config.compaction, enabled=True)
    config = structs.replace(drawn.config, compaction=compaction)
    violation, world = run(replace(drawn, config=config, faults=(untold,), spaces=(), events=()))
    assert violation is None
    assert world.counts.faults["EIO statvfs"]


def test_what_is_found_comes_back_from_another_process():
    found = pickle.loads(pickle.dumps(Found(Scenario.drawn(1), Violation("hole", "at 5"))))
    assert (found.violation.rule, found.violation.what) == ("hole", "at 5")
    assert found.scenario.seed == 1


def test_a_scenario_that_fails_is_made_small_and_fails_again():
    with patch.object(Store, "_outdated", lambda _self, _planned: None):
        found = explore(_SEARCH_S, FIXED_SEED).found
        assert found is not None
        kept = shrink(found.scenario, found.violation.rule, lambda s: run(s)[0], seconds=20)
        small = Kept.parse(str(kept)).of(found.scenario)
        violation, _ = run(small)
    assert violation is not None
    assert violation.rule == found.violation.rule
    assert kept.size < Kept.all_of(found.scenario).size


def test_a_killed_process_runs_no_callback_even_if_a_task_group_caught_its_end():
    kernel = Kernel(random.Random(1))
    process = Process(kernel)
    ran_after_the_end: list[object] = []

    async def killed():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(1.0))
            woken = loop.create_future()
            loop.call_at(0.1, woken.set_result, None)
            loop.call_at(0.1, loop.call_soon, ran_after_the_end.append, True)  # in the same turn
            await woken
            kernel.sleep(0.1)  # a system call, during which it is killed

    loop = SimulatedLoop(process, 1e-6, ran_after_the_end.append)
    Thread(process, lambda: loop.run_until_complete(killed())).start(0.0)
    kernel.at(0.15, process.end)
    while kernel.step():
        pass

    assert not process.is_alive
    assert not ran_after_the_end
