"""Counts at their limits, and how bars are divided."""

from datetime import UTC

import pytest

from logengine.aggregation import counting as module
from logengine.aggregation.counting import STREAM, Counting, parse_by
from logengine.aggregation.time_buckets import TimeBuckets
from logengine.cli.histogram import bar_parts
from logengine.cli.table import cell
from logengine.errors import InvalidFilter, InvalidOption
from logengine.filtering.syntax import field_text, parse_field
from logengine.format.block import Block


def block(*values: str, minute: int = 0) -> Block:
    lines = [
        b'{"_ts":"2026-11-23T20:%02d:00.000000Z","v":%s}\n' % (minute, value.encode())
        for value in values
    ]
    return Block("app", 1, len(lines), b"".join(lines))


def test_values_that_are_new_after_the_limit_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GROUPS_MAX", 2)
    counting = Counting(parse_by(["v"]))
    counting.add(block("1", "2", "3"))
    assert counting.is_limited
    counting.add(block("4", "2", "1", "1"))
    found = [(group.values, group.count) for group in counting.groups()]
    assert found == [((b"1",), 3), ((b"2",), 2), (None, 2)]


def test_long_values_reach_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES_MAX", 10)
    counting = Counting(parse_by(["v"]))
    counting.add(block('"aaaaaa"', '"bbbbbb"', "1", '"aaaaaa"'))
    found = [(group.values, group.count) for group in counting.groups()]
    assert found == [((b'"aaaaaa"',), 2), ((b"1",), 1), (None, 1)]


def test_others_are_counted_in_their_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUPS_MAX", 1)
    counting = Counting(parse_by(["v"]), TimeBuckets(60, UTC))
    counting.add(block("1", "2"))
    counting.add(block("1", "3", minute=1))
    found = [(group.start, group.values, group.count) for group in counting.groups()]
    first = "2026-11-23T20:00:00.000000Z"
    assert found == [(None, None, 2), (first, (b"1",), 1), (first, None, 1)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["a b"], InvalidFilter),
        ([""], InvalidFilter),
        (["_seq"], InvalidFilter),
        (["a[*]", "b[*]"], InvalidOption),
        (["a"] * 9, InvalidOption),
    ],
)
def test_what_is_no_field_or_too_much_is_refused(
    fields: list[str], expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        parse_by(fields)


@pytest.mark.parametrize(
    "text", ["a", "a.b", '"a.b"', 'a."x y"[0][*].c', '"and"', '"1"', '"\\u001b\\"\\\\"', "a.and"]
)
def test_a_field_is_written_as_it_is_parsed(text: str) -> None:
    path = parse_field(text)
    assert parse_field(field_text(path)) == path or field_text(path) == text


def test_the_stream_is_something_to_count_by() -> None:
    assert parse_by(["_stream"]) == [STREAM]
    counting = Counting([STREAM])
    counting.add(block("1"))
    assert [group.values for group in counting.groups()] == [(b'"app"',)]


@pytest.mark.parametrize(
    ("counts", "greatest", "width", "expected"),
    [
        ([10], 10, 40, [40]),
        ([0], 10, 40, [0]),
        ([1, 1000], 1001, 10, [1, 9]),  # one error among many records is seen
        ([1, 1, 1], 1000, 10, [1, 1, 1]),
        ([5, 5], 10, 10, [5, 5]),
        ([], 10, 10, []),
    ],
)
def test_a_bar_has_a_part_for_whatever_is_there(
    counts: list[int], greatest: int, width: int, expected: list[int]
) -> None:
    assert bar_parts(counts, greatest, width) == expected


def test_a_cell_is_escaped_and_cut() -> None:
    assert cell("\x1b[2J") == "\\x1b[2J"
    assert cell("a" * 100, 5) == "aaaa…"
    assert cell("日本語日本語", 5) == "日本…"
    assert cell("\u0301" * 100, 5).endswith("…")
