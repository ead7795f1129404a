"""Dropping the oldest for a full disk, under power cuts, where a compaction was just at work.

Withstands: a cut at any call, in any state that the model allows, with what the compaction
covers still there, gone without a sync, or half of it.
"""

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from logengine.disk.directory import Directory
from logengine.disk.durable_names import DurableNames, remove_covered
from logengine.disk.segment_file import list_segments
from logengine.format.segment import segment_name
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.store.stream import drop_oldest
from logengine.upkeep.compaction_plan import EndedSegment
from logengine.upkeep.rewrite import Pace, Rewriter
from tests.crash.rig import oracle
from tests.crash.rig.going import broken_by_cuts, cut_goings, dropped, fail_goings
from tests.crash.rig.mutants import nothing
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import SystemCalls
from tests.unnoted import unnoted

LAST = 6
COMPACTED = 4


def compacted_stream(data: Path, kind: str, left: int) -> None:
    """Commits segments of a record, makes one of some, and removes all but `left` of those."""
    store = Store(data, oracle.AtOnce(), CommitConfig(rewrite_limit=1))
    store.open()
    asyncio.run(store.recover_stream("app"))
    for number in range(1, LAST + 1):
        planned = store.plan("app", oracle.addition("p", number, 9))
        assert not asyncio.run(store.commit({"app": planned}))
    store.close()
    rewriter = Rewriter(data, Pace(1e12), names=unnoted(), direct_above=1000, level=1)
    parts = [EndedSegment(first, first, 100) for first in range(1, COMPACTED + 1)]
    names = [segment_name(part.first) for part in parts]
    if kind == "seal":
        writer, _ = rewriter.seal("app", parts, None)
    else:
        writer, _ = rewriter.merge("app", parts)
        names = names[1:]
    writer.publish()
    remove_covered(data / "app", names[left:])


def broken_by_a_cut(root: Path, kind: str, left: int) -> list[str]:
    """What is wrong in any state after a cut while the oldest are dropped."""
    calls = SystemCalls(root)
    with calls.taken():
        compacted_stream(calls.data, kind, left)
        calls.note("compacted")
        drop_oldest(calls.data / "app", 10**9, LAST + 1, unnoted())
    assert list_segments(calls.data / "app") == [LAST]
    return list(broken_by_cuts(calls, "compacted", LAST))


@pytest.mark.parametrize("kind", ["merge", "seal"])
@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_cut_in_a_drop_leaves_a_whole_end_of_the_stream(
    tmp_path: Path, kind: str, left: int
) -> None:
    assert broken_by_a_cut(tmp_path, kind, left) == []


def test_a_drop_that_does_not_sync_is_caught(tmp_path: Path) -> None:
    with patch.object(DurableNames, "sync", nothing):
        assert broken_by_a_cut(tmp_path, "merge", 3)


def test_a_drop_that_trusts_what_a_compaction_removed_is_caught(tmp_path: Path) -> None:
    syncs = 0
    real = DurableNames.sync

    def all_but_the_first(self: DurableNames, directory: Directory) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > 1:
            real(self, directory)

    with patch.object(DurableNames, "sync", all_but_the_first):
        assert broken_by_a_cut(tmp_path, "merge", 0)


def test_no_cut_and_no_failing_call_spoils_a_drop() -> None:
    assert cut_goings(range(SEED, SEED + 20), dropped).trees > 40
    assert fail_goings(range(SEED, SEED + 4), dropped, cut=0).failing_calls > 10


@pytest.mark.campaign
def test_no_cut_and_no_failing_call_spoils_any_drop() -> None:
    tried = cut_goings(range(SEED, SEED + 200), dropped)
    tried += fail_goings(range(SEED, SEED + 50), dropped, cut=0.3)
    print(f"drop of the oldest: {tried}")
