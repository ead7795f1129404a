"""Retention under power cuts and failing calls: what is left is always a whole end of a stream.

Withstands: a cut at any call, in any state that the model allows, and a directory that cannot
be synced.
"""

import asyncio
import contextlib
import errno
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import msgspec
import pytest
from msgspec import UNSET

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import Directory, sync_directory
from logengine.disk.durable_names import DurableNames, remove_covered
from logengine.disk.segment_file import list_segments, read_header, read_segment
from logengine.errors import AtomicWriteError
from logengine.format.segment import encode_header, segment_name
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.upkeep.compaction_plan import EndedSegment
from logengine.upkeep.repair import Repair
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import RetentionRule, RetentionRules
from logengine.upkeep.rewrite import Pace, Rewriter
from tests.crash.rig import oracle
from tests.crash.rig.going import broken_by_cuts, cut_goings, fail_goings, retained
from tests.crash.rig.mutants import nothing
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import Attempt, SystemCalls
from tests.unnoted import unnoted

SEALS = 5
RULES = RetentionRules(default=RetentionRule(max_age=1.0))


def store_and_seal(data: Path, seals: Iterable[Sequence[int]]) -> None:
    """Commits some records, each a segment, and makes seals of those."""
    store = Store(data, oracle.AtOnce(), CommitConfig(rewrite_limit=1))
    store.open()
    asyncio.run(store.recover_stream("app"))
    for number in range(1, SEALS + 2):
        planned = store.plan("app", oracle.addition("p", number, 9))
        assert not asyncio.run(store.commit({"app": planned}))
    store.close()
    rewriter = Rewriter(data, Pace(math.inf), names=unnoted(), direct_above=1000, level=1)
    after = None
    for numbers in seals:
        parts = [EndedSegment(n, n, read_header(data / "app", n).bytes) for n in numbers]
        writer, header = rewriter.seal("app", parts, after)
        writer.publish()
        remove_covered(data / "app", [segment_name(n) for n in numbers])
        after = header.first
    sync_directory(data / "app")


def sealed_stream(data: Path) -> None:
    """All but the newest sealed, each alone."""
    store_and_seal(data, [(number,) for number in range(1, SEALS + 1)])


def with_a_gap(data: Path) -> None:
    """The same, but that a seal among them was lost, and that is recorded."""
    sealed_stream(data)
    os.unlink(data / "app" / segment_name(2, compressed=True))
    Repair(data, "app", "2026-11-25T00:00:00.000001Z", lambda _: None, names=unnoted()).run()


def with_a_plain_one_back(data: Path) -> None:
    """The same, and a plain segment is there again that was sealed, as after a lost removal."""
    sealed_stream(data)
    header, body = read_segment(data / "app", 1)
    plain = msgspec.structs.replace(header, frames=UNSET, prev=UNSET)
    with AtomicWriter(data / "app" / segment_name(1), "wb", buffering=0) as writer:
        writer.write(encode_header(plain) + body)


def just_cleared_up(data: Path) -> None:
    """The same, and a compactor has just removed it."""
    with_a_plain_one_back(data)
    os.unlink(data / "app" / segment_name(1))


def retain(data: Path) -> None:
    on = Retainer(data, RULES, names=unnoted())
    on.look()
    while (removal := on.next_removal()) is not None:
        # The daemon goes on after a failure, and looks again.
        with contextlib.suppress(OSError):
            on.remove(removal)


def broken_by_a_cut(calls: SystemCalls) -> list[str]:
    return list(broken_by_cuts(calls, "sealed", SEALS + 1))


def recorded(
    root: Path,
    gate: Any = lambda _: None,
    prepare: Callable[[Path], None] = sealed_stream,
) -> SystemCalls:
    calls = SystemCalls(root)
    with calls.taken():
        prepare(calls.data)
        calls.note("sealed")
        calls.gate = gate
        retain(calls.data)
    return calls


@pytest.mark.parametrize("prepare", [sealed_stream, with_a_gap, just_cleared_up])
def test_a_cut_in_a_retention_leaves_a_whole_end_of_the_stream(
    tmp_path: Path, prepare: Callable[[Path], None]
) -> None:
    calls = recorded(tmp_path, prepare=prepare)
    assert list_segments(calls.data / "app") == [SEALS, SEALS + 1]
    assert broken_by_a_cut(calls) == []


def test_a_retention_that_does_not_sync_is_caught(tmp_path: Path) -> None:
    sealed_stream(tmp_path / "other" / "data")
    with patch.object(DurableNames, "sync", nothing):
        calls = recorded(tmp_path)
    assert broken_by_a_cut(calls)


def test_what_covers_others_waits_until_those_are_removed(tmp_path: Path) -> None:
    store_and_seal(tmp_path / "data", [(1, 2, 3), (4,)])
    directory = tmp_path / "data" / "app"
    whole = tmp_path / "whole"
    store_and_seal(whole, [])
    covered = whole / "app" / segment_name(2)
    shutil.copy(covered, directory)
    retain(tmp_path / "data")
    assert list_segments(directory) == [1, 2, 4, 5, 6]
    os.unlink(directory / covered.name)
    retain(tmp_path / "data")
    assert list_segments(directory) == [4, 5, 6]


@pytest.mark.parametrize(("call", "at"), [("unlink", 1), ("fsync", 1), ("fsync", 2)])
def test_a_retention_that_fails_goes_no_further(tmp_path: Path, call: str, at: int) -> None:
    calls_made = failures = 0

    def gate(attempt: Attempt) -> None:
        nonlocal calls_made, failures
        calls_made += attempt.call == call
        if attempt.call == call and calls_made == at:
            failures += 1
            raise OSError(errno.EIO, "injected", attempt.path)

    calls = recorded(tmp_path, gate)
    assert failures == 1
    assert broken_by_a_cut(calls) == []
    # After an unlink that failed the next one is the same; a sync that failed ends it.
    left = [SEALS, SEALS + 1] if call == "unlink" else list(range(at, SEALS + 2))
    assert list_segments(calls.data / "app") == left


def test_where_a_sync_failed_nothing_more_of_the_stream_goes(tmp_path: Path) -> None:
    sealed_stream(tmp_path / "data")
    on = Retainer(tmp_path / "data", RULES, names=unnoted())
    on.look()
    removal = on.next_removal()
    assert removal is not None
    failed = AtomicWriteError(errno.EIO, "Input/output error", "app")
    with (
        patch.object(Directory, "sync", side_effect=failed),
        pytest.raises(AtomicWriteError),
    ):
        on.remove(removal)
    assert on.next_removal() is None
    # What was chosen before stays too.
    left = list_segments(tmp_path / "data" / "app")
    assert not on.remove(removal)
    assert list_segments(tmp_path / "data" / "app") == left


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_went_before_a_failing_sync_is_reported(tmp_path: Path, fails_at: int) -> None:
    sealed_stream(tmp_path / "data")
    on = Retainer(tmp_path / "data", RULES, names=unnoted())
    on.look()
    removal = on.next_removal()
    assert removal is not None
    told = Mock()
    outcomes: list[Any] = [None, None]
    outcomes[fails_at - 1] = AtomicWriteError(errno.EIO, "Input/output error", "app")
    with (
        patch.object(Directory, "sync", side_effect=outcomes),
        pytest.raises(AtomicWriteError),
    ):
        on.remove(removal, told)
    is_gone = not (tmp_path / "data" / "app" / removal.oldest.name).exists()
    # The first sync comes before the removal.
    assert is_gone == (fails_at == 2) == told.called


def test_a_removal_is_durable_when_it_returns(tmp_path: Path) -> None:
    calls: list[str] = []
    sealed_stream(tmp_path / "data")
    on = Retainer(tmp_path / "data", RULES, names=unnoted())
    on.look()
    removal = on.next_removal()
    assert removal is not None
    fsync, unlink = os.fsync, os.unlink

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_unlink(name: str, *, dir_fd: int) -> None:
        calls.append("unlink")
        unlink(name, dir_fd=dir_fd)

    with patch.object(os, "fsync", noted_fsync), patch.object(os, "unlink", noted_unlink):
        assert on.remove(removal)
    assert calls == ["fsync", "unlink", "fsync"]


def test_after_a_commit_whose_sync_failed_nothing_of_the_stream_goes(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", oracle.AtOnce(), CommitConfig(rewrite_limit=1))
    store.open()
    asyncio.run(store.recover_stream("app"))
    for number, error in enumerate([None, OSError(errno.EIO, "injected"), None], 1):
        planned = store.plan("app", oracle.addition("p", number, 9))
        with patch.object(AtomicWriter, "sync_directory", side_effect=error):
            failed = asyncio.run(store.commit({"app": planned}))
        assert bool(failed) == bool(error)
    # What a compaction had removed just before may come back, with what it covers gone.
    assert store.unsynced == {"app"}
    assert asyncio.run(store.drop_oldest("app", 10**9)) == []
    store.close()


def test_no_cut_and_no_failing_call_spoils_a_retention() -> None:
    # A stream among many has thousands of states, which are for the campaign.
    assert cut_goings(range(SEED, SEED + 40), retained, states_max=4).trees > 100
    tried = fail_goings(range(SEED, SEED + 1), retained, cut=0, states_max=2)
    assert tried.failing_calls > 10


@pytest.mark.campaign
def test_no_cut_and_no_failing_call_spoils_any_retention() -> None:
    tried = cut_goings(range(SEED, SEED + 200), retained)
    tried += fail_goings(range(SEED, SEED + 8), retained, cut=0.1)
    print(f"retention: {tried}")
