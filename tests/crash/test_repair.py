"""Damaged streams, repaired: whatever is damaged, whenever the repair is cut off or fails.

Withstands: a kill, a power cut or a failing call anywhere in a repair, a start of the daemon
before the next one. Afterwards what was whole is served, what was damaged is kept to the
byte, `verify` finds nothing, and no number is given out twice.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest

from logengine.format import compression
from logengine.format.segment import segment_name
from logengine.store.store import Store
from logengine.upkeep.repair import DAMAGED_DIRECTORY, Repair
from logengine.upkeep.verify import verify_stream
from tests.crash.rig import oracle
from tests.crash.rig.accidents import Accidents
from tests.crash.rig.drawn_streams import Life, drawn_life, findings, live
from tests.crash.rig.power_cut import Tree
from tests.crash.rig.seed import SEED
from tests.crash.rig.withstanding import (
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
from tests.crash.test_bit_rot import LIMITS, STREAM, read, store_records
from tests.unnoted import unnoted

WHEN = "2026-11-26T00:00:00.{:06d}Z"
_TIMES = count(1)  # no two repairs are at the same time
SAME_FILE = names_aside(DAMAGED_DIRECTORY, STREAM)


@dataclass(frozen=True)
class Case:
    """A stream with damage, and what must become of it."""

    tree: Tree
    next_seq: int  # none below may be given out again
    lines: dict[int, bytes]  # by seq, of all that were ever stored
    provable: set[int]  # the seqs of those that are whole, or can be proven to be
    damaged: list[bytes]  # the contents of the files that are not
    leftovers: list[bytes]  # of those that a start of the daemon would remove
    # Whether a start before the repair loses nothing: not what a damaged merge covers.
    may_start: bool = True


def drawn_case(root: Path, source: random.Random) -> Case:
    """A stream as years leave it, and then damage of any kind, several times."""
    # Frames of one record each, or of some, or one frame: that is what can be proven alone.
    with patch.object(compression, "FRAME_BYTES", source.choice([1, 150, 1 << 20])):
        life = drawn_life(root, source)
        return damaged_case(root, source, life)


def damaged_case(root: Path, source: random.Random, life: Life) -> Case:
    """A stream of a drawn life, to which one to four accidents happen."""
    directory = root / "data" / STREAM
    accidents = Accidents(directory, source, life.lines)
    for _ in range(source.randint(1, 4)):
        accidents.happen()
    leftovers = []
    if source.random() < 0.3:
        leftovers = [b"half"]
        (directory / f".{segment_name(3)}.0123.tmp").write_bytes(*leftovers)
    return Case(
        tree_of(root),
        life.next_seq,
        life.lines,
        accidents.provable(),
        [path.read_bytes() for path in accidents.touched if path.exists()],
        leftovers,
        may_start=not accidents.any_covered(),
    )


def repair(root: Path) -> None:
    when = WHEN.format(next(_TIMES))
    Repair(root / "data", STREAM, when, lambda _: None, names=unnoted()).run()


def wrong(root: Path, case: Case, *, started: bool = False) -> Iterator[str]:
    """What is not as it should be after a repair, a daemon having `started` before or not."""
    data = root / "data"
    yield from (str(each) for each in verify_stream(data / STREAM) if not each.harmless)
    served, problems = read(data)
    there = {record.seq: record.line for record in served}
    if missing := sorted(case.provable - there.keys()):
        yield f"{missing} could be proven, and are not served"
    if len(there) < len(served):
        yield "a number is served twice"
    yield from (f"{seq} is not as it was" for seq in there if there[seq] != case.lines.get(seq))
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
    if read(data)[0][: len(served)] != served:
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
        for source, case, root in drawn_cases(place, seeds, drawn_case):
            repair(root)
            assert not (faults := list(wrong(root, case))), faults
            served = read(root / "data")[0]
            assert not (faults := list(live(root / "data", None, source))), faults
            assert not (found := findings(root / "data")), found
            assert read(root / "data")[0] == served, "compaction changed what is served"
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
