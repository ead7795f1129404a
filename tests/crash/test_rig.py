"""The rig itself: whatever is done wrong in the engine, it must find.

A mutant that no cut and no fault breaks means that the campaign proves less than it says.
"""

import asyncio
import errno
import hashlib
import os
import random
from pathlib import Path

import msgspec
import pytest

from logengine.atomic import AtomicWriter
from logengine.plan import Addition
from logengine.segment import encode_header, segment_name
from logengine.segment_file import list_segments, read_segment
from logengine.store import Store, StoreLimits
from tests.crash import cuts, faults, mutants, oracle, workload
from tests.crash.mutants import Mutant
from tests.crash.recorded import recorded
from tests.crash.system_calls import SystemCalls

SEEDS = range(1, 80)
FAULT_SEEDS = range(1, 4)
KILLS = 0.1
PRODUCER = ("app", "p")
RECORDS = 5


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_CUTS)
def test_power_cuts_catch(mutant: Mutant) -> None:
    with mutant():
        assert cut_violation(), f"not caught: {mutant.__doc__}"


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY_FAULTS)
def test_faults_catch(mutant: Mutant) -> None:
    with mutant():
        assert fault_violation(), f"not caught: {mutant.__doc__}"


def test_the_engine_as_it_is_passes_what_catches_mutants() -> None:
    assert not cut_violation()
    assert not fault_violation()


def cut_violation() -> str | None:
    """What cuts of the power find in drawn runs, if anything."""
    for seed in SEEDS:
        plan = workload.Plan.drawn(seed)
        with recorded(plan) as calls:
            trace = calls.trace
        with cuts.bench(plan.bursts) as bench:
            report = cuts.cut_everywhere(trace, bench, random.Random(seed), kills=KILLS)
        if report.violations:
            return f"seed {seed}: {report.violations[0]}"
    return None


def fault_violation() -> str | None:
    """What is found when each call of a few runs fails, if anything."""
    for seed in FAULT_SEEDS:
        plan = workload.Plan.drawn(seed, records=6, follows=False)
        source = random.Random(seed)
        with recorded(plan) as calls:
            count = len(calls.attempts)
        for fault in faults.faults_of(count, source, errors=(errno.EIO, faults.SHORT)):
            report = faults.run_with(plan, fault, source, cut=0.2)
            if report.violations:
                return f"seed {seed}: {report.violations[0]}"
    return None


def merge(directory: Path, *, sync_first: bool) -> None:
    """Merges all segments of a stream into one, as the format's documentation has it.

    The engine has no merge yet; this is what one of the next will be held to.
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
        store = Store(tmp_path / "data", oracle.AtOnce(), StoreLimits(rewrite_limit=1))
        store.open()
        asyncio.run(store.recover_stream("app"))
        for number in range(1, RECORDS + 1):
            calls.note(oracle.Sent(PRODUCER, number))
            line = b'{"_ts":"%s",%s\n' % (
                oracle.TIME.encode(),
                oracle.record_line("p", number, 9)[1:],
            )
            addition = Addition([line], 1, oracle.TIME, oracle.TIME, {"p": number})
            assert not asyncio.run(store.commit({"app": store.plan("app", addition)}))
            calls.note(oracle.Durable(PRODUCER, number))
        store.close()
        merge(tmp_path / "data" / "app", sync_first=sync_first)
    assert list_segments(tmp_path / "data" / "app") == [1]
    with cuts.bench([PRODUCER]) as bench:
        report = cuts.cut_everywhere(calls.trace, bench, random.Random(1))
    assert bool(report.violations) != sync_first
    assert report.points > 4 * RECORDS or not sync_first
