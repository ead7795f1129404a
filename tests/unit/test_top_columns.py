"""The tables of `logengine top`: which columns fit, in which order, and how figures are written."""

import pytest

from logengine.printable import columns as columns_of
from logengine.top.columns import (
    SENDER_COLUMNS,
    STREAM_COLUMNS,
    aligned,
    fitting,
    format_age,
    format_delay,
    format_rate,
    in_order,
    sparkline,
)
from logengine.top.figures import Activity, StreamFigures
from logengine.top.problems import KEPT_MAX, Problems


def figures(stream: str, rate: float = 0, errors: float = 0, **others: object) -> StreamFigures:
    of = {
        "delay_s": None,
        "waiting_records": 0,
        "waiting_bytes": 0,
        "failure": "",
        "records": 5,
        "bytes": 9,
        "segments": 1,
        "damaged": 0,
        "age_s": None,
        "is_sampled": False,
    } | others
    return StreamFigures(stream, Activity(rate, 0, errors, 0, ()), **of)  # type: ignore[arg-type]


def column(title: str):
    return next(each for each in STREAM_COLUMNS if each.title == title)


@pytest.mark.parametrize("columns", [STREAM_COLUMNS, SENDER_COLUMNS])
@pytest.mark.parametrize("width", [1, 20, 40, 79, 100, 200, 500])
def test_the_columns_that_are_shown_fit(columns, width: int) -> None:
    fitted = fitting(columns, width)
    taken = sum(each for _, each in fitted) + 2 * (len(fitted) - 1)
    assert taken <= max(width, columns[0].width)
    assert fitted[0][0] is columns[0]


def test_the_important_columns_fit_into_80() -> None:
    titles = [each.title for each, _ in fitting(STREAM_COLUMNS, 79)]
    assert titles[:5] == ["STREAM", "REC/S", "ERRORS", "WARN", "DELAY"]
    assert "DISK" in titles
    every = [each.title for each, _ in fitting(STREAM_COLUMNS, 160)]
    assert every == [each.title for each in STREAM_COLUMNS]


def test_the_greatest_come_first_and_names_in_their_order() -> None:
    rows = [figures("a", 1), figures("b", 5), figures("c", 3)]

    def sorted_by(title: str, *, is_reversed: bool = False) -> str:
        found = in_order(rows, column(title), is_reversed=is_reversed)
        return "".join(row.stream for row in found)

    assert sorted_by("REC/S") == "bca"
    assert sorted_by("REC/S", is_reversed=True) == "acb"
    assert sorted_by("STREAM") == "abc"
    assert sorted_by("ERRORS") == "abc"  # equal ones stay as they are


def test_a_stream_in_trouble_is_marked() -> None:
    assert column("STREAM").text(figures("app")) == "app"
    for row in (figures("app", failure="no space"), figures("app", damaged=1)):
        assert column("STREAM").text(row) == "app !"
        assert column("STREAM").tone(row) == "error"


def test_an_estimate_is_marked() -> None:
    assert column("ERRORS").text(figures("app", errors=1234, is_sampled=True)) == "~1,234"
    assert column("ERRORS").text(figures("app", errors=0, is_sampled=True)) == "0"


@pytest.mark.parametrize(
    ("per_s", "text"),
    [
        *((0, "0"), (0.01, "<0.1"), (0.2, "0.2"), (3, "3"), (9.96, "10.0"), (12.4, "12")),
        *((1204, "1,204"), (999_999, "999,999"), (1_200_000, "1.2M"), (4.2e9, "4.2G")),
        *((7e12, "7.0T"), (9e15, "9000.0T")),
    ],
)
def test_a_rate_is_short(per_s: float, text: str) -> None:
    assert format_rate(per_s) == text


@pytest.mark.parametrize(
    ("delay_s", "text"),
    [(None, "-"), (0.0, "1ms"), (0.004, "4ms"), (1.24, "1.2s"), (42, "42s"), (185, "3m05s")],
)
def test_a_delay_is_short(delay_s: float | None, text: str) -> None:
    assert format_delay(delay_s) == text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [(None, "-"), (0.4, "now"), (42, "42s"), (185, "3m05s"), (7800, "2h10m"), (442800, "5d03h")],
)
def test_an_age_has_two_units(age_s: float | None, text: str) -> None:
    assert format_age(age_s) == text


def test_bars_are_as_high_as_the_figures() -> None:
    assert sparkline([0, 1, 4, 8], 4) == " ▂▅█"
    assert sparkline([0.0] * 60, 20) == " " * 20
    assert sparkline([1] * 60, 20) == "█" * 20
    assert len(sparkline([1] * 60, 25)) == 25


@pytest.mark.parametrize("text", ["", "app", "a" * 50, "日本語のログ", "e\u0301" * 30])
@pytest.mark.parametrize("is_left", [True, False])
def test_a_cell_is_as_wide_as_its_column(text: str, *, is_left: bool) -> None:
    assert columns_of(aligned(text, 9, is_left=is_left)) == 9


def test_a_problem_is_listed_once_and_the_last_are_kept() -> None:
    problems = Problems()
    for n in range(KEPT_MAX + 5):
        problems.add(f"app: damaged {n}\x1b[2J")
        problems.add(f"app: damaged {n}\x1b[2J")
    assert problems.count == KEPT_MAX + 5
    assert len(problems.texts()) == KEPT_MAX
    assert problems.texts()[-1] == problems.newest == rf"app: damaged {KEPT_MAX + 4}\x1b[2J"
