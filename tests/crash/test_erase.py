"""Records erased, whenever that is cut off or fails.

Withstands: a kill, a power cut or a failing call anywhere in an erasure, a start of the
daemon before the next one. At any moment every file is whole, and has each record or its
tombstone; once the erasure, or the one after it, has ended, no file ever made has the bytes.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from logengine.errors import DamagedSegment
from logengine.format.segment import segment_name, timestamp_of
from logengine.format.time_range import ALL_TIMES
from logengine.reading.filter import Filter, Grep
from logengine.upkeep.erase import ERASING_DIRECTORY, Erasure, Wanted
from logengine.upkeep.erase_plan import Mark, is_tombstone
from logengine.upkeep.verify import verify_stream
from tests.compressed import compress_file
from tests.crash.rig.power_cut import Disk, Tree
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import Attempt, SystemCalls
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
from tests.crash.test_bit_rot import STREAM, read, store_records
from tests.unnoted import unnoted

MARK = Mark("2026-11-25T00:00:00.000001Z", "ann", "a password")
RECORDS = 9
# What was put aside and not replaced is one file with the stream's.
SAME_FILE = names_aside(ERASING_DIRECTORY, STREAM)


@dataclass(frozen=True)
class Case:
    """A stream, and what is to be erased of it."""

    tree: Tree
    lines: list[bytes]
    secret: bytes


def made_case(root: Path, source: random.Random) -> Case:
    directory = root / "data" / STREAM
    assert not store_records(root / "data", range(1, RECORDS + 1))
    lines = [record.line for record in read(root / "data")[0]]
    (path, *_) = sorted(directory.iterdir())
    if source.random() < 0.5:
        plain = path.read_bytes()
        compress_file(path)
        if source.random() < 0.5:
            path.write_bytes(plain)  # as an interrupted seal leaves it
    secret = b'"n":%d,' % source.randint(1, RECORDS)
    if source.random() < 0.5:
        (directory / f".{segment_name(3)}.0123.tmp").write_bytes(b"half " + secret)
    return Case(tree_of(root), lines, secret)


def refuse(damage: DamagedSegment) -> None:
    raise damage


def erase(root: Path, case: Case) -> None:
    wanted = Wanted(0, None, ALL_TIMES, Filter([Grep(case.secret, fixed=True)]))
    list(Erasure(root / "data", STREAM, wanted, refuse, names=unnoted()).run(MARK, 0.0))


def wrong_at_any_time(root: Path, case: Case) -> Iterator[str]:
    yield from (str(each) for each in verify_stream(root / "data" / STREAM) if not each.harmless)
    served, problems = read(root / "data")
    yield from map(str, problems)
    if len(served) != len(case.lines):
        yield f"{len(served)} records"
    for record, line in zip(served, case.lines, strict=False):
        is_erased = (
            case.secret in line
            and is_tombstone(record.line)
            and timestamp_of(record.line) == timestamp_of(line)
        )
        if record.line != line and not is_erased:
            yield f"{record} was {line!r}"


def wrong_at_the_end(root: Path, case: Case) -> Iterator[str]:
    yield from wrong_at_any_time(root, case)
    for path in root.rglob("*"):
        if path.is_file() and path.suffix != ".zst" and case.secret in path.read_bytes():
            yield f"{path} has it"
    if any(case.secret in record.line for record in read(root / "data")[0]):
        yield "it is served"
    if list((root / "data" / ERASING_DIRECTORY).glob("*")):
        yield "old files are left"
    before = tree_of(root)
    erase(root, case)
    if tree_of(root) != before:
        yield "a second erasure finds more to do"


def on_disk(disk: Disk, case: Case) -> bool:
    """Whether a plain file that is, or was, on the disk has the bytes, under a name or none."""
    # What is written once more after a sync that failed is durable after all, unlike the model.
    files = [file for file in disk._files.values() if not file.lost]
    return any(case.secret in file.durable for file in files)


def after_cut(cut: Cut, case: Case) -> Iterator[str]:
    data = cut.root / "data"
    yield from wrong_at_any_time(cut.root, case)
    if cut.source.random() < 0.5:
        before = read(data)[0]
        assert not store_records(data, [])  # as a daemon starts
        if read(data)[0] != before:
            yield "a start of the daemon changed what is stored"
    aside = any(path.startswith(f"data/{ERASING_DIRECTORY}/") for path in cut.tree)
    known = any(case.secret in content for content in cut.tree.values() if content)
    if not aside and not known and on_disk(cut.disk, case):
        yield "nobody finds the old bytes"
    erase(cut.root, case)
    yield from wrong_at_the_end(cut.root, case)


def cut_one(place: Path, case: Case, trace: Sequence[object], source: random.Random) -> int:
    tried = cut_everywhere(
        place, case.tree, trace, source, partial(after_cut, case=case), SAME_FILE
    )
    disk = Disk(case.tree)
    for event in trace:
        disk.apply(event)
    assert not on_disk(disk, case)
    return tried


def cut_erasures(seeds: Iterable[int]) -> Tried:
    """Cuts a drawn erasure everywhere, for each seed."""
    tried = Tried()
    with scratch_place() as place:
        for source, case, root in drawn_cases(place, seeds, made_case):
            trace = recorded(root, case.tree, partial(erase, case=case)).trace
            assert list(wrong_at_the_end(root, case)) == []
            tried += Tried(1, cut_one(place, case, trace, source))
    return tried


def fail_erasures(seeds: Iterable[int], cut: float) -> Tried:
    """Lets each call of a drawn erasure fail once; a share `cut` of those is cut everywhere."""
    total = Tried()
    with scratch_place() as place:
        for source, case, _ in drawn_cases(place, seeds, made_case):
            tried = Tried(1)

            def judge(
                root: Path,
                calls: SystemCalls,
                at: Attempt,
                case: Case = case,
                source: random.Random = source,
                tried: Tried = tried,
            ) -> Iterator[str]:
                yield from wrong_at_the_end(root, case)
                if at.call == "fsync" or source.random() < cut:
                    tried.trees += cut_one(place, case, calls.trace, source)

            work = partial(erase, case=case)
            tried.failing_calls += fail_every_call(place, case.tree, work, source, judge, SAME_FILE)
            total += tried
    return total


def test_no_cut_spoils_an_erasure() -> None:
    assert cut_erasures(range(SEED, SEED + 12)).trees > 100


def test_no_failing_call_spoils_an_erasure() -> None:
    assert fail_erasures(range(SEED, SEED + 3), cut=0.2).failing_calls > 50


@pytest.mark.campaign
def test_nothing_spoils_any_erasure() -> None:
    tried = cut_erasures(range(SEED, SEED + 150)) + fail_erasures(range(SEED, SEED + 15), cut=1)
    print(f"erase: {tried}")
