"""Segments that rot: any bit flipped, any tail cut off, zeroed, or something put behind it.

Withstands: damage of any stored segment, the newest too. `verify` names it, the reader
names it and serves the rest and nothing wrong, the daemon starts and takes records, the
damaged file stays as it is.
"""

import asyncio
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

from logengine.disk import segment_file
from logengine.disk.segment_file import list_segments
from logengine.errors import DamagedSegment
from logengine.format.block import Record
from logengine.reading.problem import Problem
from logengine.reading.reader import StreamReader
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.upkeep.verify import verify_stream
from tests.compressed import compress_file
from tests.crash.rig import oracle
from tests.crash.rig.cuts import SCRATCH
from tests.crash.rig.seed import SEED
from tests.crash.rig.walker import fault_of
from tests.daemon import Daemon

STREAM = "app"
# Three segments: of three records, of three, and an active one.
LIMITS = CommitConfig(rewrite_limit=200)


class Damage(NamedTuple):
    """What became of one segment."""

    what: str
    content: bytes


def flips(path: Path) -> Iterator[Damage]:
    """Every bit, flipped; but those of zstd's that mean nothing, so that nothing is damaged."""
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        if path.suffix != ".zst" or fault_of(path, bytes(flipped)):
            yield Damage(f"bit {bit} flipped", bytes(flipped))


def tails(content: bytes) -> Iterator[Damage]:
    """Every tail, cut off or zeroed; something behind the end."""
    for length in range(len(content)):
        yield Damage(f"cut to {length} bytes", content[:length])
        zeroed = content[:length] + bytes(len(content) - length)
        if zeroed != content:
            yield Damage(f"zeroed from {length} on", zeroed)
    for more in (b"\0", b"\n", b"{}\n", content[-60:], content):
        yield Damage(f"{more[:10]!r} behind its end", content + more)


@dataclass
class RotReport:
    """How many damaged segments were tried, and what was not as promised."""

    damages: int = 0
    violations: list[str] = field(default_factory=list)


def store_records(data: Path, numbers: Sequence[int]) -> dict[str, Exception]:
    """Stores records, one a commit, as a daemon does that has just started."""
    store = Store(data, oracle.AtOnce(), LIMITS)
    try:
        store.open()
        if not store.is_ready(STREAM):
            asyncio.run(store.recover_stream(STREAM))
        for number in numbers:
            planned = store.plan(STREAM, oracle.addition("p", number, 20))
            failed = asyncio.run(store.commit({STREAM: planned}))
            if failed:
                return failed
        return {}
    finally:
        store.close()


def read(data: Path) -> tuple[list[Record], list[Problem]]:
    """What a reader serves of the stream, and what it complains of."""
    problems: list[Problem] = []
    served: list[Record] = []
    try:
        for block in StreamReader(data, STREAM, problems.append).read():
            served += block.records()
    except DamagedSegment as damage:  # a reader that checks no hash comes upon it so
        problems.append(Problem(STREAM, str(damage)))
    return served, problems


def rot(directory: Path, damages: Sequence[tuple[Path, Damage]]) -> RotReport:
    """Tries each damage of a copy of the data in `directory`."""
    report = RotReport()
    whole, _ = read(directory)
    ends = [*list_segments(directory / STREAM)[1:], len(whole) + 1]
    for path, damage in damages:
        first = int(path.name[:20])
        end = min(each for each in ends if each > first)
        untouched = [record for record in whole if not first <= record.seq < end]
        if damage.content.startswith(path.read_bytes()):
            untouched = whole  # what is behind the end takes nothing away
        copy = directory.with_name("copy")
        shutil.copytree(directory, copy)
        (copy / STREAM / path.name).write_bytes(damage.content)
        report.damages += 1
        report.violations += [
            f"{path.name}, {damage.what}: {each}" for each in _wrong(copy, path.name, untouched)
        ]
        shutil.rmtree(copy)
    return report


def _wrong(data: Path, name: str, untouched: list[Record]) -> Iterator[str]:
    content = (data / STREAM / name).read_bytes()
    findings = [each for each in verify_stream(data / STREAM) if not each.harmless]
    if not any(each.path.endswith(name) for each in findings):
        yield f"verify does not name it: {findings}"
    served, problems = read(data)
    if served != untouched:
        yield f"{len(served)} records are served where {len(untouched)} are whole"
    if not any(name in str(problem) for problem in problems):
        yield f"the reader does not name it: {problems}"
    if failed := store_records(data, [1000, 1001]):
        yield f"nothing can be stored: {failed}"
    if (data / STREAM / name).read_bytes() != content:
        yield "the damaged file was changed"
    served, _ = read(data)
    new = sum(b'"n":100' in record.line for record in served[-2:])
    if served[:-2] != untouched or new != 2:
        yield "what was stored afterwards is not behind the rest"
    if len({record.seq for record in served}) != len(served):
        yield "a sequence number was used again"


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[Path]:
    """A data directory with three segments, one compressed, in memory where there is some."""
    base = Path(SCRATCH or tmp_path, f"logengine-rot-{os.getpid()}")
    assert not store_records(base / "data", range(1, 8))
    first, _, _ = sorted((base / "data" / STREAM).iterdir())
    compress_file(first)
    assert len(list_segments(base / "data" / STREAM)) == 3
    yield base / "data"
    shutil.rmtree(base)


def all_damages(data: Path) -> list[tuple[Path, Damage]]:
    return [
        (path, damage)
        for path in sorted((data / STREAM).iterdir())
        for damage in (*flips(path), *tails(path.read_bytes()))
    ]


def test_rot_is_found_and_the_rest_is_served(segments: Path) -> None:
    damages = random.Random(SEED).sample(all_damages(segments), 600)
    report = rot(segments, damages)
    assert not report.violations
    assert report.damages == 600


def test_rot_that_goes_unseen_is_a_violation(segments: Path) -> None:
    damages = random.Random(SEED).sample(all_damages(segments), 600)
    with patch.object(segment_file, "check_body", lambda *_: None):
        assert rot(segments, damages).violations


@pytest.mark.campaign
def test_any_rot_at_all_is_found_and_the_rest_is_served(segments: Path) -> None:
    report = rot(segments, all_damages(segments))
    assert not report.violations
    print(f"bit rot: {report.damages:,} damaged segments, all found")


@pytest.mark.parametrize("which", [0, 1, -1])
def test_the_commands_name_what_has_rotted(root: Path, which: int) -> None:
    daemon = Daemon(root, "[commit]\nrewrite_limit = 200\n").start()
    try:
        for number in range(9):
            daemon.cli("send", "-s", STREAM, stdin=b'{"n":%d,"x":"%s"}\n' % (number, b"x" * 30))
        assert daemon.stop() == 0
        path = sorted((daemon.data / STREAM).glob("*.ndjson"))[which]
        lost = path.read_bytes().count(b"\n") - 1
        content = bytearray(path.read_bytes())
        content[-10] ^= 1
        path.write_bytes(content)
        assert path.name.encode() in daemon.cli("verify", status=1).stdout
        for command in ("cat", "tail"):
            done = daemon.cli(command, STREAM, status=1)
            assert path.name.encode() in done.stderr
            assert len(done.stdout.splitlines()) == 9 - lost
        daemon.start()
        daemon.cli("send", "-s", STREAM, stdin=b"after\n")
        assert b'"message":"after"' in daemon.cli("cat", STREAM, status=1).stdout
        assert path.read_bytes() == content
        assert daemon.stop() == 0  # which writes the rest of the log
        assert ("segment_damaged" in daemon.events()) == (which == -1)
    finally:
        daemon.close()
