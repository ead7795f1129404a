"""Compaction of streams that were repaired, or had records erased."""

from pathlib import Path

import pytest

from logengine.disk.segment_file import list_segments, read_header, read_header_line
from logengine.format.segment import hash_for_successor, segment_name
from logengine.format.time_range import ALL_TIMES
from logengine.reading.filter import Filter, Grep
from logengine.reading.problem import Problem
from logengine.reading.reader import StreamReader
from logengine.upkeep.erase import Erasure, Wanted
from logengine.upkeep.erase_plan import Mark
from logengine.upkeep.repair import Repair
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import RetentionRule, RetentionRules
from logengine.upkeep.verify import verify_stream
from tests.store.test_compaction import LIMITS, running
from tests.unnoted import unnoted

WHEN = "2026-11-25T00:00:00.000001Z"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def served(data: Path) -> tuple[list[int], list[Problem]]:
    problems: list[Problem] = []
    blocks = list(StreamReader(data, "app", problems.append).read())
    return [
        seq for block in blocks for seq in range(block.first, block.first + block.count)
    ], problems


@pytest.mark.parametrize("flipped", [20, -20])
async def test_nothing_is_merged_or_sealed_across_a_recorded_gap(data: Path, flipped: int) -> None:
    async with running(data, compacts=False) as at:
        for _ in range(10):
            await at.commit(records=12)
    first = list_segments(data / "app")[4]
    path = data / "app" / segment_name(first)
    content = bytearray(path.read_bytes())
    content[flipped] ^= 1
    path.write_bytes(content)
    Repair(data, "app", WHEN, lambda _: None, names=unnoted()).run()
    gap = read_header(data / "app", first).gap
    assert gap
    async with running(data) as at:
        for _ in range(10):
            await at.commit(records=12)
        await at.pass_time(LIMITS.seal_small_after)
    headers = [read_header(data / "app", each) for each in list_segments(data / "app")]
    assert [header.is_sealed for header in headers] == [True, False, True]
    assert headers[1].gap == gap
    assert headers[2].prev == hash_for_successor(*read_header_line(data / "app", headers[0].first))
    seqs, problems = served(data)
    assert seqs == [seq for seq in range(1, 241) if not first <= seq <= gap.last]
    assert [problem.expected for problem in problems] == [True]
    assert all(finding.harmless for finding in verify_stream(data / "app"))


async def test_a_recorded_gap_goes_when_it_is_the_oldest_and_a_seal_is_behind_it(
    data: Path,
) -> None:
    async with running(data, compacts=False) as at:
        for _ in range(4):
            await at.commit(records=12)
    first = list_segments(data / "app")[0]
    path = data / "app" / segment_name(first)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    Repair(data, "app", WHEN, lambda _: None, names=unnoted()).run()
    retainer = Retainer(data, RetentionRules(default=RetentionRule(max_bytes=1)), names=unnoted())
    retainer.look()
    assert retainer.next_removal() is None  # behind it nothing is sealed yet
    async with running(data) as at:
        await at.pass_time(LIMITS.seal_small_after)
    retainer.look()
    removal = retainer.next_removal()
    assert removal
    assert removal.oldest.name == path.name
    retainer.remove(removal)
    assert not path.exists()
    assert retainer.next_removal() is None  # the newest seal
    assert list(verify_stream(data / "app")) == []


async def test_the_chain_goes_on_behind_a_seal_with_erased_records(data: Path) -> None:
    async with running(data) as at:
        await at.commit(records=12)
        await at.pass_time(LIMITS.seal_small_after)
    header, _ = read_header_line(data / "app", 1)
    assert header.is_sealed
    before = hash_for_successor(*read_header_line(data / "app", 1))
    wanted = Wanted(0, None, ALL_TIMES, Filter([Grep(b'"n":7,', fixed=True)]))
    mark = Mark(WHEN, "ann")
    (affected,) = Erasure(data, "app", wanted, lambda _: None, names=unnoted()).run(mark, 0.0)
    assert affected.seqs == [7]
    erased = read_header(data / "app", 1)
    assert erased.erased
    assert (erased.prev, erased.erased.original) == ("", before)
    assert hash_for_successor(*read_header_line(data / "app", 1)) == before
    async with running(data) as at:
        await at.commit(records=12)
        await at.pass_time(LIMITS.seal_small_after)
    assert read_header(data / "app", 13).prev == before
    (told,) = verify_stream(data / "app")
    assert told.harmless
    assert told.what.startswith("1 of its records were erased since it was sealed: nothing proves")
    assert served(data) == (list(range(1, 25)), [])
