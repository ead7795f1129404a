"""The report of the scenario *everyday*, from measurements made up and from a short run."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import results
from benchmarks.contest import CHECKOUT
from benchmarks.everyday import Cell, Found, Turn, Waiting
from benchmarks.paced import Load, Paced
from benchmarks.scenario import Bench
from benchmarks.scenarios.everyday import SCENARIO
from benchmarks.spent import Spent


def turn(cores: float, times: float, p50_ms: float = 0, rate: int = 1000) -> Turn:
    """Ten seconds of it, in which so many times what was logged was written."""
    load = Load(50, rate, 11.0)
    logged = rate * 10 * 256
    written = int(logged * times)
    return Turn(
        load=load,
        paced=Paced(rate, 0, 0, p50_ms, 2 * p50_ms, 3 * p50_ms, 0.1, 0.05),
        spent=Spent(10.0, cores * 10, written, 2 * written, 100),
        peak_mib=30.0,
        commits=500 if p50_ms else None,
        stored_bytes=int(load.records * 256 * 1.25) if p50_ms else None,
        sealed_bytes=int(load.records * 256 * times * 1.5) if p50_ms else None,
    )


def found(ours: list[Turn], theirs: list[Turn], connections: int = 50) -> Found:
    turns = {"logengine": ours, "rsyslog": theirs} if theirs else {"logengine": ours}
    cell = Cell(1000, connections, turns, {"rsyslog": 2.5})
    return Found([cell], Waiting(1, {}, {}, {}, {}), [], [], [], ["journald"])


def aims(of: Found, root: Path) -> dict[str, bool]:
    return {aim.work: aim.is_met for aim in SCENARIO.render(of, root).aims}


def test_a_row_shows_each_and_the_ratio_of_the_same_round(root: Path) -> None:
    ours = [turn(0.10, 2, 5), turn(0.30, 2, 6), turn(0.12, 2, 7)]
    theirs = [turn(0.20, 4), turn(0.20, 4), turn(0.24, 4)]
    section = SCENARIO.render(found(ours, theirs), root)
    assert "| 1,000/s | 50 | 12 % | 20 % | **0.50x** (0.50 to 1.50) |" in section.text
    assert "| 1,000/s | 50 | 2x | 4x | **0.50x** (0.50 to 0.50) | 3x | 4x | 8x |" in section.text
    assert "| 1,000/s | 50 | 50 | 2.50 | 10 | 10 |" in section.text
    assert "the medians of 3 rounds. Could not be had here: journald." in section.text
    assert "| 1,000/s | 12 % / 20 % | 2x / 4x | 6 | 12 |" in section.readme


def test_the_worst_number_of_connections_decides_whether_an_aim_is_met(root: Path) -> None:
    good = found([turn(0.1, 2, 5)], [turn(0.2, 4)])
    assert all(aims(good, root).values())
    bad = found([turn(0.3, 6, 25)], [turn(0.2, 4)], connections=1)
    good.cells += bad.cells
    met = aims(good, root)
    assert {work: is_met for work, is_met in met.items() if "until sealed" not in work} == {
        "1,000/s: CPU by rsyslog's, worst by connections": False,
        "1,000/s: bytes written by rsyslog's, worst": False,
        "1,000/s: bytes written by bytes stored, worst": False,
        "1,000/s: ack p50 where nobody waits, worst": False,
    }


def test_bytes_written_are_aimed_at_by_the_bytes_stored(root: Path) -> None:
    work = "1,000/s: bytes written by bytes stored, worst"
    # What is stored is 1.25 times what was logged.
    assert aims(found([turn(0.1, 4.9, 5)], []), root)[work]
    assert not aims(found([turn(0.1, 5.1, 5)], []), root)[work]


def test_without_rsyslog_nothing_is_by_rsyslogs(root: Path) -> None:
    assert not any("rsyslog" in work for work in aims(found([turn(0.1, 2, 5)], []), root))


def test_chosen_cells_are_measured_kept_and_reported(root: Path) -> None:
    bench = Bench(
        software=root,
        rounds=1,
        scale=0.01,
        sustained_rounds=1,
        growth_max=1,
        everyday_rounds=1,
        rates=(100,),
        connections=(2,),
    )
    results.measure(SCENARIO, bench, root)
    results.render([SCENARIO], root)
    kept = msgspec.json.decode((root / "results/everyday.json").read_bytes(), type=results.Kept)
    ((cell,), crowd) = (of := msgspec.json.decode(kept.found, type=Found)).cells, of.crowd
    assert not crowd
    ((ours,),) = cell.turns.values()
    assert ours.paced.unacked == 0
    assert ours.commits
    assert ours.spent.cpu_s > 0
    assert "| 100/s | 2 |" in (root / "RESULTS.md").read_text()


def test_the_readme_gets_the_table_between_its_marks_and_keeps_the_rest() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    once = results.with_table(readme, "everyday", "| a table |\n")
    again = results.with_table(once, "everyday", "| another |\n")
    assert once.count("| a table |\n<!-- end of everyday -->") == 1
    assert again == once.replace("| a table |", "| another |")
    before = readme.partition("<!-- `make bench`")[0]
    assert once.startswith(before)
    assert once.endswith(readme.partition("<!-- end of everyday -->")[2])


def test_a_readme_without_the_marks_is_not_changed() -> None:
    with pytest.raises(ValueError, match="the README has no"):
        results.with_table("# A project\n", "everyday", "| a table |\n")
