"""Damaged streams, repaired: whatever is damaged, whenever the repair is cut off or fails.

Withstands: a kill, a power cut or a failing call anywhere in a repair, a start of the daemon
before the next one. Afterwards what was whole is served, what was damaged is kept to the
byte, `verify` finds nothing, and no number is given out twice.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from logengine.repair import DAMAGED_DIRECTORY, Repair
from logengine.segment import segment_name
from logengine.store import Store
from logengine.verify import verify_stream
from tests.compressed import compress_file
from tests.crash import oracle
from tests.crash.power_cut import Tree
from tests.crash.seed import SEED
from tests.crash.test_bit_rot import LIMITS, STREAM, read, store_records
from tests.crash.test_rig import merge
from tests.crash.withstanding import (
    Cut,
    Tried,
    cut_everywhere,
    drawn_cases,
    fail_every_call,
    names_aside,
    recorded,
    scratch_place,
    tree_of,
)

WHEN = "2026-11-25T00:00:00.000001Z"
RECORDS = 14
SAME_FILE = names_aside(DAMAGED_DIRECTORY, STREAM)


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
    yield from (f"told as damage: {each}" for each in problems if not each.expected)
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


def drawn_case(root: Path, source: random.Random) -> Case:
    make = damaged_merge_case if source.random() < 0.2 else damaged_case
    return make(root, source)


def after_cut(cut: Cut, case: Case) -> Iterator[str]:
    started = case.may_start and cut.source.random() < 0.5
    if started:
        yield from numbers_used_again(cut.root / "data", case)
    repair(cut.root)
    yield from wrong(cut.root, case, started=started)


def mend(seeds: Iterable[int]) -> Tried:
    """Repairs a drawn stream for each seed."""
    tried = Tried()
    with scratch_place() as place:
        for _, case, root in drawn_cases(place, seeds, drawn_case):
            repair(root)
            assert list(wrong(root, case)) == []
            tried += Tried(cases=1)
    return tried


def cut_repairs(seeds: Iterable[int]) -> Tried:
    """Cuts the repair of a drawn stream everywhere, for each seed."""
    tried = Tried()
    with scratch_place() as place:
        for source, case, root in drawn_cases(place, seeds, drawn_case):
            trace = recorded(root, case.tree, repair).trace
            judge = partial(after_cut, case=case)
            tried += Tried(1, cut_everywhere(place, case.tree, trace, source, judge, SAME_FILE))
    return tried


def fail_repairs(seeds: Iterable[int]) -> Tried:
    """Lets each call of the repair of a drawn stream fail once, for each seed."""
    tried = Tried()
    with scratch_place() as place:
        for source, case, _ in drawn_cases(place, seeds, drawn_case):

            def judge(root: Path, _calls: object, _at: object, case: Case = case) -> Iterator[str]:
                return wrong(root, case)

            tried += Tried(
                1, 0, fail_every_call(place, case.tree, repair, source, judge, SAME_FILE)
            )
    return tried


def test_any_damage_is_mended() -> None:
    assert mend(range(SEED, SEED + 60)).cases == 60


def test_no_cut_spoils_a_repair() -> None:
    assert cut_repairs(range(SEED, SEED + 25)).trees > 200


def test_no_failing_call_spoils_a_repair() -> None:
    assert fail_repairs(range(SEED, SEED + 5)).failing_calls > 100


@pytest.mark.campaign
def test_no_cut_and_no_failing_call_spoils_any_repair() -> None:
    tried = mend(range(SEED, SEED + 2000))
    tried += cut_repairs(range(SEED, SEED + 60)) + fail_repairs(range(SEED, SEED + 60))
    print(f"repair: {tried}")
