"""Every file-system call of recorded runs fails: once, or until it is mended.

Withstands: EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EINTR and short writes at any open, write,
fsync, rename, unlink, mkdir and sync of a directory, and the power cut around them.
"""

import random
from collections.abc import Iterable, Sequence

import pytest

from tests.crash import faults, workload
from tests.crash.cuts import Report
from tests.crash.recorded import recorded
from tests.crash.seed import SEED


def fail_runs(
    seeds: Iterable[int],
    *,
    share: float,
    cut: float,
    records: int,
    errors: Sequence[int] = faults.ALL_ERRORS,
) -> Report:
    """Runs under a `share` of all faults, of which a share `cut` is also cut everywhere."""
    total = Report()
    for seed in seeds:
        plan = workload.Plan.drawn(seed, records=records, follows=False)
        source = random.Random(seed)
        with recorded(plan) as calls:
            count = len(calls.attempts)
        for fault in faults.faults_of(count, source, share, errors):
            report = faults.run_with(plan, fault, source, cut)
            report.violations = [f"seed {seed}: {each}" for each in report.violations]
            total += report
            if total.violations:
                return total
    return total


def test_no_failing_call_breaks_a_promise() -> None:
    report = fail_runs(range(SEED, SEED + 12), share=0.04, cut=0.1, records=6)
    print(report)
    assert not report.violations
    assert report.faults > 100


@pytest.mark.campaign
def test_every_call_fails_and_no_promise_breaks() -> None:
    report = fail_runs(range(SEED, SEED + 6), share=1, cut=0.05, records=5)
    report += fail_runs(range(SEED + 6, SEED + 60), share=0.05, cut=0.1, records=12)
    print(f"faults: {report}")
    assert not report.violations
