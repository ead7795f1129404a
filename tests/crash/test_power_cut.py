"""The power is cut, by model, at every point of recorded runs.

Withstands: any loss that `power_cut` describes, at any call, in the life of a daemon that
starts after a kill too; and the loss of power within a recovery.
"""

import random
from collections.abc import Iterable

import pytest

from tests.crash.rig import cuts, journal, workload
from tests.crash.rig.cuts import Report
from tests.crash.rig.power_cut import SECTOR_BYTES, Disk, contents_after_cut
from tests.crash.rig.recorded import recorded
from tests.crash.rig.seed import SEED
from tests.crash.rig.system_calls import (
    ROOT,
    DataSynced,
    Made,
    Removed,
    Renamed,
    Synced,
    SyncFailed,
    Written,
    WrittenBack,
)

KILLS = 0.02


def cut_runs(
    seeds: Iterable[int],
    *,
    streams: int,
    records: int,
    kills: float = KILLS,
    retains: bool = False,
    one_flush: bool = False,
    has_journal: bool = False,
) -> Report:
    """Records one run under each seed, and cuts it everywhere, until one is violated."""
    total = Report()
    for seed in seeds:
        plan = workload.Plan.drawn(
            seed,
            streams=streams,
            records=records,
            retains=retains,
            one_flush=one_flush,
            has_journal=has_journal,
        )
        try:
            with recorded(plan) as calls:
                trace = calls.trace
        except BaseExceptionGroup as error:  # what a follower saw, say
            total.violations.append(f"seed {seed}: the run ended: {error.exceptions!r}")
            break
        with cuts.bench(plan.bursts, plan.make_retainer) as bench:
            report = cuts.cut_everywhere(
                trace, bench, random.Random(seed), disk=plan.disk(), kills=kills
            )
        report.violations = [f"seed {seed}: {each}" for each in report.violations]
        total += report
        if total.violations:
            break
    return total


# In parts, which several processes share.
@pytest.mark.parametrize("part", range(7))
def test_no_cut_breaks_a_promise(part: int) -> None:
    seeds = range(SEED + 10 * part, SEED + 10 * (part + 1))
    report = cut_runs(seeds, streams=3, records=10)
    print(report)
    assert not report.violations
    assert report.states > 500


@pytest.mark.parametrize("one_flush", [False, True], ids=["two flushes", "one flush"])
def test_no_cut_breaks_a_promise_on_a_file_system_with_a_journal(*, one_flush: bool) -> None:
    seeds = range(SEED, SEED + 10)
    report = cut_runs(seeds, streams=3, records=10, one_flush=one_flush, has_journal=True)
    print(report)
    assert not report.violations
    assert report.states > 500


def test_one_flush_is_not_enough_where_no_journal_orders_data_and_names() -> None:
    assert cut_runs(range(SEED, SEED + 10), streams=3, records=10, one_flush=True).violations


@pytest.mark.campaign
@pytest.mark.parametrize("kills", [0, KILLS, 0.3])
def test_no_cut_of_many_breaks_a_promise_of_one_flush(kills: float) -> None:
    seeds = range(SEED, SEED + 300)
    report = cut_runs(seeds, streams=3, records=12, kills=kills, one_flush=True, has_journal=True)
    report += cut_runs(
        seeds[:50], streams=2, records=16, kills=0, retains=True, one_flush=True, has_journal=True
    )
    print(f"one flush, power cut: {report}")
    assert not report.violations


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("runs", "streams", "records", "kills"),
    [
        pytest.param(1500, 3, 10, KILLS, id="many runs"),
        pytest.param(300, 4, 25, KILLS, id="longer runs"),
        # Every event of these is also a kill, with a second daemon that is cut everywhere.
        pytest.param(40, 3, 5, 1, id="kills"),
    ],
)
def test_no_cut_of_many_breaks_a_promise(
    runs: int, streams: int, records: int, kills: float
) -> None:
    seeds = range(SEED, SEED + runs)
    report = cut_runs(seeds, streams=streams, records=records, kills=kills)
    print(f"power cut: {report}")
    assert not report.violations
    assert report.states > 100_000


@pytest.mark.campaign
def test_no_cut_beside_a_retention_breaks_a_promise() -> None:
    report = cut_runs(range(SEED, SEED + 50), streams=2, records=16, retains=True)
    report += cut_runs(range(SEED, SEED + 15), streams=1, records=30, kills=0.1, retains=True)
    print(f"power cut beside a retention: {report}")
    assert not report.violations


def states_after(*events: object) -> list[dict[str, bytes | None]]:
    disk = Disk()
    for event in events:
        disk.apply(event)
    return [dict(tree) for tree in disk.states(random.Random(1))]


A, B = 1, 2
MADE = Made(ROOT, "a", A, is_directory=False)


def test_what_is_not_synced_may_be_lost_torn_or_zero() -> None:
    states = states_after(MADE, Synced(ROOT), Written(A, 0, b"x" * (SECTOR_BYTES + 88)))
    contents = {tree["a"] for tree in states}
    assert b"" in contents
    assert b"x" * SECTOR_BYTES in contents
    assert b"\0" * SECTOR_BYTES + b"x" * 88 in contents
    assert b"x" * (SECTOR_BYTES + 88) in contents


def test_what_is_synced_stays() -> None:
    states = states_after(MADE, Written(A, 0, b"x"), Synced(A), Synced(ROOT))
    assert states == [{"a": b"x"}]


def test_a_synced_file_without_a_synced_name_may_be_gone() -> None:
    states = states_after(MADE, Written(A, 0, b"x"), Synced(A))
    assert sorted(states, key=len) == [{}, {"a": b"x"}]


def test_names_come_in_any_order() -> None:
    other = Made(ROOT, "b", B, is_directory=False)
    states = states_after(MADE, Synced(A), other, Synced(B))
    assert sorted(map(sorted, states)) == [[], ["a"], ["a", "b"], ["b"]]


def test_a_rename_is_done_or_not() -> None:
    states = states_after(
        MADE, Written(A, 0, b"old"), Synced(A), Synced(ROOT), Made(ROOT, "t", B, is_directory=False)
    )
    assert {tree["a"] for tree in states} == {b"old"}
    disk = Disk({"a": b"old", "t": b"new"})
    disk.apply(Renamed(ROOT, "t", "a"))
    assert list(disk.states(random.Random(1))) == [{"a": b"old", "t": b"new"}, {"a": b"new"}]


def test_a_removal_that_is_not_synced_may_come_back() -> None:
    disk = Disk({"a": b"x"})
    disk.apply(Removed(ROOT, "a"))
    assert list(disk.states(random.Random(1))) == [{"a": b"x"}, {}]


def test_a_file_in_a_directory_whose_name_is_not_synced_may_be_gone() -> None:
    directory = Made(ROOT, "d", A, is_directory=True)
    states = states_after(directory, Made(A, "a", B, is_directory=False), Synced(B), Synced(A))
    assert {} in states


@pytest.mark.parametrize(("synced", "lost"), [(A, {"a": b""}), (ROOT, {})])
def test_what_a_failed_sync_lost_no_later_one_brings_back(synced: int, lost: object) -> None:
    events = [MADE, Written(A, 0, b"x"), Synced(ROOT if synced == A else A)]
    states = states_after(*events, SyncFailed(synced), Synced(synced))
    assert lost in states


def test_of_a_large_file_the_telling_states_are_drawn() -> None:
    new = b"n" * (20 * SECTOR_BYTES)
    contents = contents_after_cut(b"", new)
    assert len(contents) < 100
    assert {b"", new, new[:-1], b"\0" * len(new)} <= set(contents)


def journal_states_after(*events: object) -> list[dict[str, bytes | None]]:
    disk = journal.Disk({"a": b"old"})
    for event in [Made(ROOT, "t", 2, is_directory=False), Written(2, 0, b"new"), *events]:
        disk.apply(event)
    return [
        {name: content for name, content in tree.items() if name != "t"}
        for tree in disk.states(random.Random(1))
    ]


RENAMED = Renamed(ROOT, "t", "a")


def test_a_journal_has_the_data_that_was_written_back_before_the_rename() -> None:
    states = journal_states_after(WrittenBack(2), RENAMED)
    assert {tree["a"] for tree in states} == {b"old", b"new"}


def test_a_journal_may_have_a_name_without_the_data_that_was_written_back_after_it() -> None:
    states = journal_states_after(RENAMED, WrittenBack(2))
    assert {b"old", b"new", b""} <= {tree["a"] for tree in states}


def test_a_file_that_is_synced_after_its_rename_has_its_name_in_a_journal() -> None:
    assert journal_states_after(WrittenBack(2), RENAMED, Synced(2)) == [{"a": b"new"}]


def test_fdatasync_leaves_the_rename_out_of_a_journal() -> None:
    states = journal_states_after(WrittenBack(2), RENAMED, DataSynced(2))
    assert {tree["a"] for tree in states} == {b"old", b"new"}


def test_a_journal_keeps_the_order_of_names() -> None:
    other = Made(ROOT, "b", 3, is_directory=False)
    states = journal_states_after(WrittenBack(2), RENAMED, other)
    assert all(tree["a"] == b"new" for tree in states if "b" in tree)


def test_what_a_failed_sync_lost_no_later_one_brings_back_to_a_journal() -> None:
    states = journal_states_after(WrittenBack(2), RENAMED, SyncFailed(2), Synced(2), Synced(ROOT))
    assert {tree["a"] for tree in states} == {b"old", b"new"}


def test_data_that_could_not_be_written_back_may_be_lost_in_a_journal() -> None:
    states = journal_states_after(SyncFailed(2), RENAMED, Synced(2))
    assert b"" in {tree["a"] for tree in states}
