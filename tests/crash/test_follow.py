"""A follower beside a daemon whose syncs of directories fail.

Withstands: a sync of a stream's directory that fails once, and loses a name for good that can be
seen all the same, whoever syncs it then and is told ok; and the power cut at any point.
"""

import random
from collections.abc import Iterable

import pytest

from tests.crash.rig import faults, mutants, workload
from tests.crash.rig.cuts import Report
from tests.crash.rig.mutants import Mutant
from tests.crash.rig.recorded import recorded
from tests.crash.rig.seed import SEED

SEEDS = range(1, 5)


def followed_runs(
    seeds: Iterable[int], *, streams: int = 2, records: int = 6, share: float = 1.0
) -> Report:
    """Lets a `share` of such syncs fail in followed runs, and cuts each everywhere."""
    total = Report()
    for seed in seeds:
        plan = workload.Plan.drawn(seed, streams=streams, records=records)
        source = random.Random(seed)
        with recorded(plan) as run:
            attempts = run.attempts
        for fault in faults.failing_syncs(attempts, source, share):
            report = faults.run_with(plan, fault, source, cut=1)
            report.violations = [f"seed {seed}: {each}" for each in report.violations]
            total += report
            if total.violations:
                return total
    return total


def test_a_follower_shows_nothing_that_a_failed_sync_lost() -> None:
    report = followed_runs(SEEDS, share=0.3)
    print(report)
    assert not report.violations
    assert report.faults > 2


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_FOLLOWERS)
def test_followers_beside_failing_syncs_catch(mutant: Mutant) -> None:
    with mutant():
        assert followed_runs(SEEDS).violations, f"not caught: {mutant.__doc__}"


@pytest.mark.campaign
def test_no_failed_sync_beside_a_follower_breaks_a_promise() -> None:
    report = followed_runs(range(SEED, SEED + 60), share=0.3)
    report += followed_runs(range(SEED, SEED + 20), streams=3, records=12, share=0.2)
    print(f"failed syncs beside a follower: {report}")
    assert not report.violations
