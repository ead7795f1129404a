"""The rig itself: whatever is done wrong in the engine, it must find.

A mutant that no cut and no fault breaks means that the campaign proves less than it says.
"""

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logengine.disk.atomic import AtomicWriter
from logengine.disk.segment_file import list_segments, read_segment
from logengine.format.segment import encode_header, segment_name
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig import cuts, faults, mutants, oracle
from tests.crash.rig.mutants import Mutant
from tests.crash.rig.system_calls import SystemCalls
from tests.crash.test_faults import fail_runs
from tests.crash.test_power_cut import cut_runs

SEEDS = range(1, 80)
MANY_SEEDS = range(1, 400)
FAULT_SEEDS = range(1, 4)
# Runs in which streams press on the cache of active segments.
CROWDED_FAULT_SEEDS = range(16, 18)
# Runs in which several sealed segments go at once, and cursors hold some back.
RETAINED_SEEDS = (16, 27)
FAILED_SYNC_SEEDS = (1,)
FULL_DISK_SEEDS = (2,)
KILLS = 0.1
PRODUCER = ("app", "p")
RECORDS = 5


# Found by the last of the runs only: half a minute each, and more.
CAUGHT_LATE = {
    mutants.uncertain_forgotten,
    mutants.leftover_trusted,
    mutants.directory_of_failed_sync_kept,
    mutants.state_not_set_back,
}


def early_and_late(found: Iterable[Mutant]) -> list[Any]:
    """The mutants, those that are found late for the campaign."""
    return [
        pytest.param(mutant, marks=[pytest.mark.campaign] if mutant in CAUGHT_LATE else [])
        for mutant in found
    ]


@pytest.mark.parametrize("mutant", early_and_late(mutants.CAUGHT_BY_CUTS))
def test_power_cuts_catch(mutant: Mutant) -> None:
    with mutant():
        assert cut_violations(), f"not caught: {mutant.__doc__}"


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_CUTS_OF_ONE_FLUSH)
def test_power_cuts_of_one_flush_catch(mutant: Mutant) -> None:
    with mutant():
        report = cut_runs(SEEDS, streams=3, records=10, one_flush=True, has_journal=True)
    assert report.violations, f"not caught: {mutant.__doc__}"


@pytest.mark.campaign
@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_MANY_CUTS)
def test_many_power_cuts_catch(mutant: Mutant) -> None:
    with mutant():
        assert cut_violations(MANY_SEEDS), f"not caught: {mutant.__doc__}"


@pytest.mark.parametrize("mutant", early_and_late(mutants.CAUGHT_BY_FAULTS))
def test_faults_catch(mutant: Mutant) -> None:
    with mutant():
        assert fault_violations(), f"not caught: {mutant.__doc__}"


@pytest.mark.campaign
def test_the_engine_as_it_is_passes_the_cuts_that_catch_mutants() -> None:
    assert not cut_violations()


@pytest.mark.campaign
def test_the_engine_as_it_is_passes_the_faults_that_catch_mutants() -> None:
    assert not fault_violations()


def cut_violations(seeds: Iterable[int] = SEEDS) -> list[str]:
    """What cuts of the power find in drawn runs."""
    return cut_runs(seeds, streams=3, records=10, kills=KILLS).violations


def fault_violations() -> list[str]:
    """What is found when each call of a few runs fails."""
    errors = (errno.EIO, faults.SHORT)
    report = fail_runs(FAULT_SEEDS, share=1, cut=0.3, records=6, errors=errors)
    if not report.violations:
        report += fail_runs(CROWDED_FAULT_SEEDS, share=1, cut=0, records=12, errors=[errno.EIO])
    return report.violations


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_CUTS_OF_RETENTION)
def test_power_cuts_beside_a_retention_catch(mutant: Mutant) -> None:
    with mutant():
        assert retention_violations(), f"not caught: {mutant.__doc__}"


@pytest.mark.campaign
@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_FAULTS_OF_RETENTION)
def test_faults_beside_a_retention_catch(mutant: Mutant) -> None:
    with mutant():
        assert failed_sync_violations(), f"not caught: {mutant.__doc__}"


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_FULL_DISKS)
def test_full_disks_that_take_the_oldest_catch(mutant: Mutant) -> None:
    with mutant():
        assert full_disk_violations(), f"not caught: {mutant.__doc__}"


def test_the_engine_as_it_is_passes_what_catches_mutants_of_retention() -> None:
    assert not retention_violations()
    assert not full_disk_violations()


@pytest.mark.campaign
def test_the_engine_as_it_is_passes_the_failing_syncs_that_catch_mutants() -> None:
    assert not failed_sync_violations()


def retention_violations() -> list[str]:
    """What cuts of the power find where sealed segments go meanwhile."""
    return cut_runs(RETAINED_SEEDS, streams=1, records=24, kills=0, retains=True).violations


def failed_sync_violations() -> list[str]:
    """What cuts find beside a retention when a sync has failed."""
    return fail_runs(
        FAILED_SYNC_SEEDS,
        share=1,
        cut=1,
        records=10,
        errors=[errno.EIO],
        retains=True,
        calls={"fsync"},
    ).violations


def full_disk_violations() -> list[str]:
    """What cuts find when a disk is full and takes the oldest segments."""
    return fail_runs(
        FULL_DISK_SEEDS,
        share=1,
        cut=1,
        records=24,
        errors=[errno.ENOSPC],
        drops_oldest=True,
        calls={"create"},
    ).violations


def merge(directory: Path, *, sync_first: bool) -> None:
    """Merges all segments of a stream into one, as the format's documentation has it.

    By hand, so that it has none of the engine's own mistakes, nor its safeguards.
    """
    segments = [read_segment(directory, first) for first in list_segments(directory)]
    body = b"".join(body for _, body in segments)
    newest = segments[-1][0]
    header = msgspec.structs.replace(
        newest,
        first=segments[0][0].first,
        count=sum(header.count for header, _ in segments),
        bytes=len(body),
        since=segments[0][0].since,
        sha256=hashlib.sha256(body).hexdigest(),
    )
    path = directory / segment_name(header.first)
    covered = [directory / segment_name(each.first) for each, _ in segments[:0:-1]]
    writer = AtomicWriter(path, "wb", buffering=0)
    writer.open()
    writer.write_buffers([encode_header(header), body])
    writer.prepare()
    writer.publish()
    if sync_first:
        writer.sync_directory()
    for each in covered:
        os.unlink(each)
    if not sync_first:
        writer.sync_directory()


@pytest.mark.parametrize("sync_first", [True, False])
def test_a_merge_that_unlinks_before_the_sync_is_caught(
    tmp_path: Path, *, sync_first: bool
) -> None:
    calls = SystemCalls(tmp_path)
    with calls.taken():
        store = Store(tmp_path / "data", oracle.AtOnce(), CommitConfig(rewrite_limit=1))
        store.open()
        asyncio.run(store.recover_stream("app"))
        for number in range(1, RECORDS + 1):
            calls.note(oracle.Sent(PRODUCER, number))
            planned = store.plan("app", oracle.addition("p", number, 9))
            assert not asyncio.run(store.commit({"app": planned}))
            calls.note(oracle.Durable(PRODUCER, number))
        store.close()
        merge(tmp_path / "data" / "app", sync_first=sync_first)
    assert list_segments(tmp_path / "data" / "app") == [1]
    with cuts.bench([PRODUCER]) as bench:
        report = cuts.cut_everywhere(calls.trace, bench, random.Random(1))
    assert bool(report.violations) != sync_first
    assert report.points > 4 * RECORDS or not sync_first
