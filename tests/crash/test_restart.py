"""The sync of a stream's directory fails, the process is killed, and another one starts.

Withstands: what a failed sync lost for good, although a process of the same boot sees it, and
is told ok when it syncs once more; and the power cut anywhere in the life of both.
"""

import random
from collections.abc import Iterable

import pytest

from tests.crash.rig import faults, mutants, workload
from tests.crash.rig.cuts import Report
from tests.crash.rig.mutants import Mutant
from tests.crash.rig.recorded import recorded
from tests.crash.rig.seed import SEED

# Runs that are short, and in which the mutants are caught.
SEEDS = (1, 7)
RETAINED_SEEDS = (2,)


def restart_runs(
    seeds: Iterable[int],
    *,
    share: float = 1.0,
    kills: float = 1.0,
    records: int = 5,
    streams: int = 1,
    retains: bool = False,
    one_flush: bool = False,
) -> Report:
    """Lets a `share` of such syncs fail in the runs of so many seeds, until one is violated."""
    total = Report()
    for seed in seeds:
        plan = workload.Plan.drawn(
            seed,
            streams=streams,
            records=records,
            follows=False,
            retains=retains,
            one_flush=one_flush,
            has_journal=one_flush,
        )
        source = random.Random(seed)
        with recorded(plan) as run:
            attempts = run.attempts
        among = faults.sync_of_commit if one_flush else faults.sync_of_stream
        for fault in faults.failing_syncs(attempts, source, share, among):
            report = faults.run_with(plan, fault, source, cut=1, kills=kills)
            report.violations = [f"seed {seed}: {each}" for each in report.violations]
            total += report
            if total.violations:
                return total
    return total


@pytest.mark.parametrize("one_flush", [False, True], ids=["two flushes", "one flush"])
def test_what_a_failed_sync_lost_is_written_again_after_a_kill(*, one_flush: bool) -> None:
    report = restart_runs(SEEDS, one_flush=one_flush)
    print(report)
    assert not report.violations
    assert report.faults > 2


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_RESTARTS)
def test_restarts_catch(mutant: Mutant) -> None:
    with mutant():
        assert restart_runs(SEEDS).violations, f"not caught: {mutant.__doc__}"


@pytest.mark.campaign
@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_RESTARTS_BESIDE_A_RETENTION)
def test_restarts_beside_a_retention_catch(mutant: Mutant) -> None:
    with mutant():
        assert retained_runs(RETAINED_SEEDS).violations, f"not caught: {mutant.__doc__}"


def retained_runs(seeds: Iterable[int]) -> Report:
    """Runs in which sealed segments go, also in the life of the second process."""
    return restart_runs(seeds, kills=0.1, records=14, retains=True)


@pytest.mark.campaign
def test_no_failed_sync_before_a_kill_breaks_a_promise() -> None:
    report = restart_runs(range(SEED, SEED + 40))
    report += restart_runs(range(SEED, SEED + 20), share=0.3, kills=0.2, records=10, streams=3)
    report += retained_runs(RETAINED_SEEDS)
    report += restart_runs(range(SEED, SEED + 12), share=0.3, kills=0.1, records=14, retains=True)
    print(f"failed syncs before a kill: {report}")
    assert not report.violations
