"""Records erased, whenever that is cut off or fails.

Withstands: a kill, a power cut or a failing call anywhere in an erasure, a start of the
daemon before the next one. At any moment every file is whole, and has each record or its
tombstone; once the erasure, or the one after it, has ended, no file ever made has the bytes.
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

from logengine.erase import ERASING_DIRECTORY, Erasure, Wanted
from logengine.erasure import Mark, is_tombstone
from logengine.errors import DamagedSegment
from logengine.filter import Filter, Grep
from logengine.segment import segment_name, timestamp_of
from logengine.time_range import ALL_TIMES
from logengine.verify import verify_stream
from tests.compressed import compress_file
from tests.crash.cuts import SCRATCH
from tests.crash.power_cut import Disk, Tree
from tests.crash.seed import SEED
from tests.crash.system_calls import Gate, SystemCalls
from tests.crash.test_bit_rot import STREAM, read, store_records
from tests.crash.test_repair import failing, tree_of

MARK = Mark("2026-11-25T00:00:00.000001Z", "ann", "a password")
RECORDS = 9


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
    wanted = Wanted(0, None, ALL_TIMES, Filter(Grep(case.secret, fixed=True)))
    list(Erasure(root / "data", STREAM, wanted, refuse).run(MARK, 0.0))


def make(root: Path, tree: Tree) -> Path:
    """A directory that holds `tree`; what was put aside and not replaced is one file, linked."""
    root.mkdir()
    for path, content in sorted(
        tree.items(), key=lambda each: (ERASING_DIRECTORY in each[0], each)
    ):
        if content is None:
            (root / path).mkdir()
            continue
        first = f"data/{STREAM}/{path.rpartition('-')[2]}"
        if ERASING_DIRECTORY in path and tree.get(first) == content:
            os.link(root / first, root / path)
        else:
            (root / path).write_bytes(content)
    return root


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


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    place = Path(SCRATCH or tmp_path, f"logengine-erase-{os.getpid()}")
    place.mkdir()
    yield place
    shutil.rmtree(place)


def cases(scratch: Path, seeds: range) -> Iterator[tuple[random.Random, Case, Path]]:
    for seed in seeds:
        source = random.Random(seed)
        root = scratch / "made"
        root.mkdir()
        yield source, made_case(root, source), root
        shutil.rmtree(root)


def recorded(root: Path, case: Case, gate: Gate | None = None) -> SystemCalls:
    """An erasure, and one more if a call of the first one failed; under one recorder."""
    disk = Disk(case.tree)
    calls = SystemCalls(root, names=disk.names(), inode=disk.next_inode)
    if gate is not None:
        calls.gate = gate
    with calls.taken():
        with suppress(OSError):
            erase(root, case)
        if gate is not None:
            erase(root, case)
    return calls


def on_disk(disk: Disk, case: Case) -> bool:
    """Whether a plain file that is, or was, on the disk has the bytes, under a name or none."""
    # What is written once more after a sync that failed is durable after all, unlike the model.
    files = [file for file in disk._files.values() if not file.lost]
    return any(case.secret in file.durable for file in files)


def assert_withstands_cuts(
    scratch: Path, case: Case, trace: list[object], source: random.Random
) -> int:
    disk = Disk(case.tree)
    seen = set()
    for event in trace:
        assert disk.apply(event)
        for tree in disk.states(source):
            key = tuple(sorted(tree.items()))
            if key in seen:
                continue
            seen.add(key)
            cut = make(scratch / "cut", tree)
            what = f"cut after {str(event)[:80]}"
            assert list(wrong_at_any_time(cut, case)) == [], what
            if source.random() < 0.5:
                before = read(cut / "data")[0]
                assert not store_records(cut / "data", [])  # as a daemon starts
                assert read(cut / "data")[0] == before
            aside = any(path.startswith(f"data/{ERASING_DIRECTORY}/") for path in tree)
            known = any(case.secret in content for content in tree.values() if content)
            assert aside or known or not on_disk(disk, case), f"{what}: nobody finds the old bytes"
            erase(cut, case)
            assert list(wrong_at_the_end(cut, case)) == [], what
            shutil.rmtree(cut)
    assert not on_disk(disk, case)
    return len(seen)


def test_no_cut_spoils_an_erasure(scratch: Path) -> None:
    tried = 0
    for source, case, root in cases(scratch, range(SEED, SEED + 12)):
        trace = recorded(root, case).trace
        assert list(wrong_at_the_end(root, case)) == []
        tried += assert_withstands_cuts(scratch, case, trace, source)
    assert tried > 100


def assert_withstands_failing_calls(scratch: Path, seeds: range, cut: float) -> int:
    tried = 0
    for source, case, whole in cases(scratch, seeds):
        for at in range(1, len(recorded(whole, case).attempts) + 1):
            root = make(scratch / "failing", case.tree)
            # What cannot be read cannot be erased, which is said.
            with suppress(DamagedSegment):
                calls = recorded(root, case, failing(at, source.choice([errno.EIO, errno.ENOSPC])))
                assert list(wrong_at_the_end(root, case)) == [], calls.attempts[at - 1]
                if calls.attempts[at - 1].call == "fsync" or source.random() < cut:
                    assert_withstands_cuts(scratch, case, calls.trace, source)
            shutil.rmtree(root)
            tried += 1
    return tried


def test_no_failing_call_spoils_an_erasure(scratch: Path) -> None:
    assert assert_withstands_failing_calls(scratch, range(SEED, SEED + 3), cut=0.2) > 50


@pytest.mark.campaign
def test_nothing_spoils_any_erasure(scratch: Path) -> None:
    tried = 0
    for source, case, root in cases(scratch, range(SEED, SEED + 150)):
        tried += assert_withstands_cuts(scratch, case, recorded(root, case).trace, source)
    faults = assert_withstands_failing_calls(scratch, range(SEED, SEED + 15), cut=1)
    print(f"erase: {tried:,} trees after cuts, {faults:,} failing calls")
