"""Damaged streams, repaired: whatever is damaged, whenever the repair is cut off or fails.

Withstands: a kill, a power cut or a failing call anywhere in a repair, a start of the daemon
before the next one. Afterwards what was whole is served, what was damaged is kept to the
byte, `verify` finds nothing, and no number is given out twice.
"""

import errno
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from logengine.repair import DAMAGED_DIRECTORY, Repair
from logengine.segment import segment_name
from logengine.store import Store
from logengine.verify import verify_stream
from tests.compressed import compress_file
from tests.crash import oracle
from tests.crash.cuts import SCRATCH, Bench
from tests.crash.power_cut import Disk, Tree
from tests.crash.seed import SEED
from tests.crash.system_calls import Attempt, Gate, SystemCalls
from tests.crash.test_bit_rot import LIMITS, STREAM, read, store_records
from tests.crash.test_rig import merge

WHEN = "2026-11-25T00:00:00.000001Z"
RECORDS = 14


@dataclass(frozen=True)
class Case:
    """A stream with damage, and what must become of it."""

    tree: Tree
    next_seq: int  # none below may be given out again
    served: list[bytes]  # of the segments that are whole
    damaged: list[bytes]  # the contents of the files that are not
    leftovers: list[bytes]  # of those that a start of the daemon would remove
    # Whether a start before the repair loses nothing: not what a damaged merge covers.
    may_start: bool = True


def tree_of(root: Path) -> Tree:
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.name != ".lock"
    }


def damaged_case(root: Path, source: random.Random) -> Case:
    """A stream of some segments, of either kind, of which some are damaged or missing."""
    directory = root / "data" / STREAM
    assert not store_records(root / "data", range(1, RECORDS + 1))
    for path in sorted(directory.iterdir())[: source.randint(0, 2)]:
        compress_file(path)
    paths = sorted(directory.iterdir())
    whole = {record.seq: record.line for record in read(root / "data")[0]}
    firsts = [int(path.name[:20]) for path in paths] + [RECORDS + 1]
    damaged = []
    for index in source.sample(range(len(paths)), source.randint(1, 3)):
        path = paths[index]
        for seq in range(firsts[index], firsts[index + 1]):
            whole.pop(seq, None)
        content = bytearray(path.read_bytes())
        place = source.randrange(len(content))
        match source.randrange(5):
            case 0 if index < len(paths) - 1:  # nobody can know of a newest one that is gone
                path.unlink()
                continue
            case 1:
                del content[place:]
            case 2:
                content[place:] = bytes(len(content) - place)
            case 3:
                content += b"{}\n"
            case _:
                # Anywhere but in the few bits that mean nothing to zstd.
                content[place] ^= 0xFF
        if bytes(content) == path.read_bytes():
            content.append(0)
        path.write_bytes(content)
        damaged.append(bytes(content))
    leftovers = []
    if source.random() < 0.3:
        leftovers = [b"half"]
        (directory / f".{segment_name(3)}.0123.tmp").write_bytes(*leftovers)
    lines = [whole[seq] for seq in sorted(whole)]
    return Case(tree_of(root), RECORDS + 1, lines, damaged, leftovers)


def damaged_merge_case(root: Path, source: random.Random) -> Case:
    """A merge that was interrupted, and then damaged behind its header."""
    directory = root / "data" / STREAM
    assert not store_records(root / "data", range(1, RECORDS + 1))
    lines = [record.line for record in read(root / "data")[0]]
    paths = sorted(directory.iterdir())[1:]
    covered = {path: path.read_bytes() for path in paths}
    merge(directory, sync_first=True)
    left = paths[: source.randint(1, len(paths))]  # they are removed newest first
    for path in left:
        path.write_bytes(covered[path])
    merged = directory / segment_name(1)
    content = bytearray(merged.read_bytes())
    content[source.randrange(content.index(b"\n") + 1, len(content))] ^= 1
    merged.write_bytes(content)
    end = sum(covered[path].count(b"\n") - 1 for path in left)
    first = int(left[0].name[:20])
    served = lines[first - 1 : first - 1 + end]
    return Case(tree_of(root), RECORDS + 1, served, [bytes(content)], [], may_start=False)


def repair(root: Path) -> None:
    Repair(root / "data", STREAM, WHEN, lambda _: None).run()


def wrong(root: Path, case: Case, *, started: bool = False) -> Iterator[str]:
    """What is not as it should be after a repair, a daemon having `started` before or not."""
    data = root / "data"
    yield from (str(each) for each in verify_stream(data / STREAM) if not each.harmless)
    served, problems = read(data)
    if [record.line for record in served] != case.served:
        yield f"{len(served)} records are served, {len(case.served)} were whole"
    yield from (f"told as damage: {each}" for each in problems if not each.recorded)
    places = [data / DAMAGED_DIRECTORY, data / STREAM]
    kept = [path.read_bytes() for place in places if place.exists() for path in place.iterdir()]
    wanted = case.damaged if started else case.damaged + case.leftovers
    yield from (f"{content[:40]!r} is not kept" for content in wanted if content not in kept)
    before = tree_of(root)
    repair(root)
    if tree_of(root) != before:
        yield "a second repair finds more to do"
    yield from numbers_used_again(data, case)
    if failed := store_records(data, [1000, 1001]):
        yield f"the stream does not go on: {failed}"
    if [record.line for record in read(data)[0]][: len(case.served)] != case.served:
        yield "going on changed what was stored"
    yield from (f"going on: {each}" for each in verify_stream(data / STREAM) if not each.harmless)


def numbers_used_again(data: Path, case: Case) -> Iterator[str]:
    """Starts as a daemon does, which may not give out a number that was."""
    store = Store(data, oracle.AtOnce(), LIMITS)
    try:
        recovery = store.open()[STREAM]
        assert not isinstance(recovery, OSError)
        if recovery.state.next_seq < case.next_seq:
            yield f"{recovery.state.next_seq} would be given out again"
    finally:
        store.close()


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    place = Path(SCRATCH or tmp_path, f"logengine-repair-{os.getpid()}")
    place.mkdir()
    yield place
    shutil.rmtree(place)


def cases(scratch: Path, seeds: range) -> Iterator[tuple[random.Random, Case, Path]]:
    for seed in seeds:
        source = random.Random(seed)
        root = scratch / "made"
        root.mkdir()
        make = damaged_merge_case if source.random() < 0.2 else damaged_case
        case = make(root, source)
        yield source, case, root
        shutil.rmtree(root)


def recorded_repair(root: Path, case: Case) -> SystemCalls:
    disk = Disk(case.tree)
    calls = SystemCalls(root, names=disk.names(), inode=disk.next_inode)
    with calls.taken():
        repair(root)
    return calls


def assert_mends(scratch: Path, seeds: range) -> int:
    tried = 0
    for _, case, root in cases(scratch, seeds):
        repair(root)
        assert list(wrong(root, case)) == []
        tried += 1
    return tried


def assert_withstands_cuts(scratch: Path, seeds: range) -> int:
    """Cuts the power, which is more than a kill, after each call of a repair."""
    tried = 0
    for source, case, root in cases(scratch, seeds):
        place = scratch / "cuts"
        place.mkdir()
        bench = Bench(place, [])
        disk = Disk(case.tree)
        seen: set[tuple[tuple[str, bytes | None], ...]] = set()
        for event in recorded_repair(root, case).trace:
            assert disk.apply(event)
            for tree in disk.states(source):
                key = tuple(sorted(tree.items()))
                if key in seen:
                    continue
                seen.add(key)
                cut = bench.make(tree)
                started = case.may_start and source.random() < 0.5
                if started:
                    assert list(numbers_used_again(cut / "data", case)) == []
                repair(cut)
                assert list(wrong(cut, case, started=started)) == [], f"cut after {str(event)[:80]}"
                shutil.rmtree(cut)
                tried += 1
        shutil.rmtree(place)
    return tried


def failing(at: int, error: int) -> Gate:
    """Lets one call fail."""

    def gate(attempt: Attempt) -> None:
        if attempt.number == at:
            raise OSError(error, "injected", attempt.path)

    return gate


def assert_withstands_failing_calls(scratch: Path, seeds: range) -> int:
    """Lets each call of a repair fail once, and repairs again."""
    tried = 0
    for source, case, _ in cases(scratch, seeds):
        disk = Disk(case.tree)
        place = scratch / "faults"
        for at in range(1, 1000):
            place.mkdir()
            bench = Bench(place, [])
            copy = bench.make(case.tree)

            gate = failing(at, source.choice([errno.EIO, errno.ENOSPC]))
            calls = SystemCalls(copy, names=disk.names(), inode=disk.next_inode, gate=gate)
            with calls.taken(), suppress(OSError):
                repair(copy)
            repair(copy)
            assert list(wrong(copy, case)) == [], f"call {at}: {calls.attempts[at - 1 : at]}"
            shutil.rmtree(place)
            tried += 1
            if len(calls.attempts) < at:
                break
    return tried


def test_any_damage_is_mended(scratch: Path) -> None:
    assert assert_mends(scratch, range(SEED, SEED + 60)) == 60


def test_no_cut_spoils_a_repair(scratch: Path) -> None:
    assert assert_withstands_cuts(scratch, range(SEED, SEED + 25)) > 200


def test_no_failing_call_spoils_a_repair(scratch: Path) -> None:
    assert assert_withstands_failing_calls(scratch, range(SEED, SEED + 5)) > 100


@pytest.mark.campaign
def test_no_cut_and_no_failing_call_spoils_any_repair(scratch: Path) -> None:
    mended = assert_mends(scratch, range(SEED, SEED + 2000))
    cuts = assert_withstands_cuts(scratch, range(SEED, SEED + 60))
    faults = assert_withstands_failing_calls(scratch, range(SEED, SEED + 60))
    print(f"repair: {mended:,} streams, {cuts:,} trees after cuts, {faults:,} failing calls")
