"""Every file-system call of recorded runs fails: once, or until it is mended.

Withstands: EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EINTR and short writes at any open, write,
fsync, rename, unlink, mkdir and sync of a directory, and the power cut around them.
"""

import errno
import random
from collections.abc import Collection, Iterable, Sequence

import pytest

from tests.crash.rig import faults, workload
from tests.crash.rig.cuts import Report
from tests.crash.rig.recorded import recorded
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import CHANGING, LOOKING


def fail_runs(
    seeds: Iterable[int],
    *,
    share: float,
    cut: float,
    records: int,
    errors: Sequence[int] = faults.ALL_ERRORS,
    retains: bool = False,
    drops_oldest: bool = False,
    calls: Collection[str] = CHANGING | LOOKING,
    one_flush: bool = False,
) -> Report:
    """Runs under a `share` of the faults of `calls`; a share `cut` of them is cut everywhere."""
    total = Report()
    for seed in seeds:
        plan = workload.Plan.drawn(
            seed,
            records=records,
            follows=False,
            retains=retains,
            drops_oldest=drops_oldest,
            one_flush=one_flush,
            has_journal=one_flush,
        )
        source = random.Random(seed)
        with recorded(plan) as run:
            attempts = [attempt for attempt in run.attempts if attempt.call in calls]
        for fault in faults.faults_of(attempts, source, share, errors):
            report = faults.run_with(plan, fault, source, cut)
            report.violations = [f"seed {seed}: {each}" for each in report.violations]
            total += report
            if total.violations:
                return total
    return total


# In parts, which several processes share.
@pytest.mark.parametrize("part", range(3))
def test_no_failing_call_breaks_a_promise(part: int) -> None:
    seeds = range(SEED + 2 * part, SEED + 2 * (part + 1))
    report = fail_runs(seeds, share=0.04, cut=0.1, records=6)
    print(report)
    assert not report.violations
    assert report.faults > 30


def test_no_failing_call_breaks_a_promise_of_one_flush() -> None:
    report = fail_runs(range(SEED, SEED + 2), share=0.04, cut=0.1, records=6, one_flush=True)
    # What a failed sync lost is seen once the power is cut.
    report += fail_runs(
        range(SEED + 2, SEED + 4),
        share=0.5,
        cut=1,
        records=6,
        errors=[errno.EIO],
        calls={"write back", "fsync"},
        one_flush=True,
    )
    print(report)
    assert not report.violations
    assert report.faults > 30


@pytest.mark.campaign
def test_every_call_fails_and_no_promise_breaks() -> None:
    report = fail_runs(range(SEED, SEED + 6), share=1, cut=0.05, records=5)
    report += fail_runs(range(SEED + 6, SEED + 60), share=0.05, cut=0.1, records=12)
    print(f"faults: {report}")
    assert not report.violations


@pytest.mark.campaign
def test_no_failing_call_beside_a_retention_breaks_a_promise() -> None:
    report = fail_runs(range(SEED, SEED + 8), share=0.04, cut=0.3, records=14, retains=True)
    # What a failed sync lost is seen once the power is cut.
    report += fail_runs(
        range(SEED + 8, SEED + 12),
        share=0.3,
        cut=1,
        records=14,
        errors=[errno.EIO],
        retains=True,
        calls={"fsync"},
    )
    print(f"faults beside a retention: {report}")
    assert not report.violations


@pytest.mark.campaign
def test_no_full_disk_that_takes_the_oldest_breaks_a_promise() -> None:
    full = fail_runs(
        range(SEED, SEED + 10),
        share=0.1,
        cut=0.5,
        records=20,
        errors=[errno.ENOSPC, errno.EDQUOT],
        drops_oldest=True,
        calls={"create", "write", "fsync", "rename"},
    )
    others = fail_runs(range(SEED, SEED + 5), share=0.02, cut=0.3, records=14, drops_oldest=True)
    print(f"full disks that take the oldest: {full + others}")
    assert not (full + others).violations
