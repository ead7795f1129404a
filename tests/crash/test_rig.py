"""The rig itself: whatever is done wrong in the engine, it must find.

A mutant that no cut and no fault breaks means that the campaign proves less than it says.
"""

import random

import pytest

from tests.crash import cuts, faults, mutants, workload
from tests.crash.mutants import Mutant
from tests.crash.recorded import recorded

SEEDS = range(1, 80)
FAULT_SEEDS = range(1, 20)
KILLS = 0.1


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_CUTS)
def test_power_cuts_catch(mutant: Mutant) -> None:
    with mutant():
        for seed in SEEDS:
            plan = workload.Plan.drawn(seed)
            with recorded(plan) as calls:
                trace = calls.trace
            with cuts.bench(plan.bursts) as bench:
                report = cuts.cut_everywhere(trace, bench, random.Random(seed), kills=KILLS)
            if report.violations:
                print(f"seed {seed}: {report.violations[0]}")
                return
    pytest.fail(f"not caught: {mutant.__doc__}")


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_FAULTS)
def test_faults_catch(mutant: Mutant) -> None:
    with mutant():
        for seed in FAULT_SEEDS:
            plan = workload.Plan.drawn(seed, records=6, follows=False)
            source = random.Random(seed)
            with recorded(plan) as calls:
                count = len(calls.attempts)
            for fault in faults.faults_of(count, source, 0.1):
                report = faults.run_with(plan, fault, source, cut=1)
                if report.violations:
                    print(f"seed {seed}: {report.violations[0]}")
                    return
    pytest.fail(f"not caught: {mutant.__doc__}")
