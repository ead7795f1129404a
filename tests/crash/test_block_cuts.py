"""ext4 and xfs lose power at any block, while files are committed in several ways.

Withstands: any loss that `block_cuts` describes; a file system that shuts down under load. Both
ways of the engine have to, with two flushes and with one, by themselves and in a server that
recovers afterwards. Ways with something left out must be found.
"""

from functools import partial

import pytest

from tests.crash.rig import block_cuts, commit_ways, engine_work, mutants
from tests.crash.rig.block_cuts import cut_runs, cut_work
from tests.crash.rig.commit_ways import Way
from tests.crash.rig.mutants import Mutant
from tests.crash.rig.seed import SEED

GOOD = [commit_ways.todays, commit_ways.one_flush]
BAD = [
    commit_ways.without_the_wait,
    commit_ways.without_the_last_fsync,
    commit_ways.without_the_directory,
    commit_ways.without_any_sync,
]
# A single run may miss what a bad way leaves out: its threads have to meet.
RUNS_MAX = 20
SHUTDOWNS_MAX = 50


@pytest.fixture(params=["ext4", "xfs"])
def kind(request: pytest.FixtureRequest) -> str:
    return _possible(request.param)


@pytest.mark.parametrize("way", GOOD, ids=lambda way: way.__name__)
def test_what_was_acknowledged_outlives_a_cut_at_any_block(kind: str, way: Way) -> None:
    report = cut_runs(kind, way, [SEED], 25)
    print(kind, report)
    assert not report.violations
    assert report.cuts == 25


@pytest.mark.parametrize("way", BAD, ids=lambda way: way.__name__)
def test_a_way_that_leaves_something_out_is_found(kind: str, way: Way) -> None:
    _assert_found(kind, way)


def test_fdatasync_in_place_of_the_last_fsync_is_found_on_ext4() -> None:
    _assert_found("ext4", commit_ways.with_fdatasync)


@pytest.mark.parametrize(
    ("unsafe", "options"),
    [
        pytest.param("ext4", "nobarrier", id="no barriers"),
        pytest.param("ext4 without a journal", "", id="no journal"),
        pytest.param("ext4 with fast commits", "", id="fast commits"),
    ],
)
def test_one_flush_is_not_enough_without_a_whole_journal_commit(unsafe: str, options: str) -> None:
    _assert_found(unsafe, commit_ways.one_flush, options)


# xfs breaks a file in one of a thousand such cuts, with one flush or two: durability.md.
@pytest.mark.campaign
@pytest.mark.parametrize("way", GOOD, ids=lambda way: way.__name__)
def test_a_flush_that_fails_loses_nothing_that_was_acknowledged(kind: str, way: Way) -> None:
    report = cut_runs(kind, way, range(SEED, SEED + 4), 8, fails_a_flush=True)
    print(kind, report)
    assert not report.violations
    assert report.failed_flushes


@pytest.mark.parametrize("flushes", [1, 2])
def test_what_a_server_acknowledged_outlives_a_cut_at_any_block(kind: str, flushes: int) -> None:
    seeds = range(SEED, SEED + 3)
    report = cut_work(kind, partial(engine_work.serve, flushes=flushes), seeds, 10)
    print(kind, flushes, report)
    assert not report.violations
    assert report.cuts == 30


@pytest.mark.parametrize(
    "mutant", [mutants.one_flush_without_fsync, mutants.one_flush_before_rename]
)
def test_a_server_whose_one_flush_leaves_something_out_is_found(kind: str, mutant: Mutant) -> None:
    seeds = range(SEED, SEED + RUNS_MAX)
    with mutant():
        report = cut_work(kind, partial(engine_work.serve, flushes=1), seeds, 25)
    assert report.violations
    print(f"{kind}: after {report.cuts} cuts: {report.violations[0]}")


@pytest.mark.campaign
@pytest.mark.parametrize("flushes", [1, 2])
@pytest.mark.parametrize(
    ("kind", "options"), [("ext4", ""), ("ext4", "data=writeback"), ("xfs", "")]
)
def test_ten_thousand_cuts_of_a_server_lose_nothing(kind: str, options: str, flushes: int) -> None:
    serve = partial(engine_work.serve, flushes=flushes)
    report = cut_work(_possible(kind), serve, range(SEED, SEED + 200), 50, options=options)
    print(kind, options, flushes, report)
    assert not report.violations


@pytest.mark.campaign
@pytest.mark.parametrize("way", GOOD, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("ext4", ""), ("ext4", "data=writeback"), ("ext4", "dioread_lock"), ("xfs", "")],
)
def test_ten_thousand_cuts_lose_nothing(kind: str, options: str, way: Way) -> None:
    report = cut_runs(_possible(kind), way, range(SEED, SEED + 100), 100, options=options)
    print(kind, options, way.__name__, report)
    assert not report.violations


@pytest.mark.parametrize("way", GOOD, ids=lambda way: way.__name__)
def test_what_was_acknowledged_outlives_a_shutdown(kind: str, way: Way) -> None:
    _assert_outlives_shutdowns(kind, way, 4)


def test_a_way_without_its_last_fsync_is_found_by_a_shutdown(kind: str) -> None:
    seeds = range(SEED, SEED + SHUTDOWNS_MAX)
    report = block_cuts.shut_down(kind, commit_ways.without_the_last_fsync, seeds)
    assert report.violations
    print(f"{kind}: after {report.cuts} shutdowns: {report.violations[0]}")


@pytest.mark.campaign
@pytest.mark.parametrize("way", GOOD, ids=lambda way: way.__name__)
def test_ten_thousand_shutdowns_lose_nothing(kind: str, way: Way) -> None:
    _assert_outlives_shutdowns(kind, way, 10_000)


def _possible(kind: str) -> str:
    if reason := block_cuts.missing(kind):
        pytest.skip(reason)
    return kind


def _assert_found(kind: str, way: Way, options: str = "") -> None:
    report = cut_runs(_possible(kind), way, range(SEED, SEED + RUNS_MAX), 100, options=options)
    assert report.violations
    print(f"{kind} {options}: after {report.cuts} cuts: {report.violations[0]}")


def _assert_outlives_shutdowns(kind: str, way: Way, times: int) -> None:
    report = block_cuts.shut_down(kind, way, range(SEED, SEED + times))
    print(kind, way.__name__, "shut down:", report)
    assert not report.violations
    assert report.commits
