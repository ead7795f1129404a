"""Counts against a count that takes each record alone, decoded by another JSON library."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from logengine.aggregation.counting import Counting, Group, keep_most_frequent, parse_by
from logengine.aggregation.time_buckets import TimeBuckets
from logengine.filtering.levels import LEVEL_NAMES, rank_of_name, rank_of_number
from logengine.format.block import Block
from logengine.format.timestamp import format_moment

ABSENT = object()
VALUES = [
    *('"a"', '"\\u0061"', '"b"', '"\\ud800"', '"é"', '"\\u00e9"', '"1"', '"\\u009b"', '"\\/"'),
    *("1", "1.0", "1e0", "10", "1e1", "-0", "0", "0.10", "0.1", "1e99999", "-1.50"),
    *("true", "null", "[]", "{}", "[1]", "123456789012345678901234567890"),
    *('"warn"', '"WARNING"', '"error"', "40", "4", "3"),
]
values = st.sampled_from(VALUES)
NAMES = ["a", "level", "a.b", "tags", "x y"]
records = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(NAMES),
            values
            | values.map(lambda value: f'{{"b":{value}}}')
            | st.lists(values, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        ),
        st.integers(0, 3 * 86400 * 1_000_000),
    ),
    max_size=30,
)
FIELDS = ["a", "level", "a.b", '"a.b"', "tags[*]", "tags[0]", '"x y"', "_stream", "none"]
by = st.lists(st.sampled_from(FIELDS), max_size=3, unique=True)
ZONES = [UTC, timezone(timedelta(hours=5, minutes=30)), ZoneInfo("Europe/Berlin")]
START = datetime(2026, 10, 24, tzinfo=UTC)  # on the day after, clocks in Berlin are set back
MONDAY = datetime(1969, 12, 29, tzinfo=UTC)
LENGTHS_S = [0.25, 1, 60, 300, 3600, 7200, 86400, 7 * 86400]


def block_of(parts: list[tuple[dict[str, str], int]], stream: str = "app") -> Block:
    lines = []
    for fields, offset_us in parts:
        moment = format_moment(START + timedelta(microseconds=offset_us))
        members = [f'"_ts":"{moment}"', *(f'"{name}":{value}' for name, value in fields.items())]
        lines.append(f"{{{','.join(members)}}}\n".encode())
    return Block(stream, 1, len(lines), b"".join(lines))


def meaning(value: Any, field: str) -> Any:
    """What is equal for values that mean the same, and for no others."""
    if field == "level":
        rank = (
            rank_of_name(value)
            if isinstance(value, str)
            else rank_of_number(int(value), field)
            if isinstance(value, Decimal) and 0 <= value < 100
            else None
        )
        if isinstance(value, str) and value.isdigit():
            rank = rank_of_number(int(value), field)
        if rank is not None:
            return str, LEVEL_NAMES[rank]
    if isinstance(value, list | dict):
        return json.dumps(value, default=lambda number: {"number": str(number)})
    return type(value), value


def values_at(record: dict[str, Any], field: str) -> list[Any]:
    if field == "_stream":
        return ["app"]
    if field.startswith("tags"):
        tags = record.get("tags", ABSENT)
        if not isinstance(tags, list):
            return []
        return tags if field == "tags[*]" else tags[:1]
    if field == "a.b":
        nested = record.get("a", ABSENT)
        found = [nested["b"]] if isinstance(nested, dict) and "b" in nested else []
        found += [record["a.b"]] if "a.b" in record else []
        return found[:1]
    name = field.strip('"')
    return [record[name]] if name in record else []


def naive(block: Block, fields: list[str]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for record in block.records():
        decoded = json.loads(record.line, parse_int=Decimal, parse_float=Decimal)
        rows: list[tuple[Any, ...]] = [()]
        for field in fields:
            found = {meaning(value, field): None for value in values_at(decoded, field)}
            rows = [(*row, each) for row in rows for each in (found or [ABSENT])]
        counts.update(rows)
    return counts


def decoded(group: Group, fields: list[str]) -> Any:
    assert group.values is not None
    return tuple(
        ABSENT
        if value is None
        else meaning(json.loads(value, parse_int=Decimal, parse_float=Decimal), field)
        for value, field in zip(group.values, fields, strict=True)
    )


@given(records, by)
@example([({"tags": '["a","\\u0061"]'}, 0)], ["tags[*]"])
def test_counts_by_fields_are_those_of_each_record_alone(
    parts: list[tuple[dict[str, str], int]], fields: list[str]
) -> None:
    block = block_of(parts)
    counting = Counting(parse_by(fields))
    if parts:
        middle = len(parts) // 2
        for each in (block.end_before(1 + middle), block.begin_at(1 + middle)):
            if each.count:
                counting.add(each)
    groups = counting.groups()
    found = {decoded(group, fields): group.count for group in groups}
    assert len(found) == len(groups)  # what means the same is one group
    assert found == (naive(block, fields) if fields else {(): len(parts)})
    assert counting.records == len(parts)


@given(records, st.sampled_from(LENGTHS_S), st.sampled_from(ZONES))
def test_buckets_divide_the_time(
    parts: list[tuple[dict[str, str], int]], length_s: float, zone: Any
) -> None:
    buckets = TimeBuckets(length_s, zone)
    counting = Counting([], buckets)
    if not parts:
        return
    counting.add(block_of(parts))
    groups = counting.groups()
    assert sum(group.count for group in groups) == len(parts)
    starts = [group.start for group in groups if group.start is not None]
    assert starts == sorted(set(starts))
    expected: Counter[str] = Counter()
    for _, offset_us in parts:
        moment = START + timedelta(microseconds=offset_us)
        start = max(each for each in starts if each <= format_moment(moment))
        expected[start] += 1
        passed = moment - datetime.fromisoformat(start)
        # A day may have 25 hours.
        slack = timedelta(hours=1 if length_s >= 86400 and zone is ZONES[2] else 0)
        assert passed < timedelta(seconds=length_s) + slack
    assert expected == {group.start: group.count for group in groups}
    for start in starts:
        local = datetime.fromisoformat(start).astimezone(zone)
        seconds = (local.replace(tzinfo=UTC) - MONDAY).total_seconds()
        assert seconds % length_s == 0
    for start, following in pairwise(starts):
        steps = 0
        while start < following:
            later = buckets.after(start)
            assert later > start
            start = later  # noqa: PLW2901
            steps += 1
            if steps > 20:
                break
        assert start == following or steps > 20


@given(records, by, st.integers(1, 4), st.sampled_from([None, 3600.0]))
def test_the_most_frequent_are_kept_and_nothing_is_lost(
    parts: list[tuple[dict[str, str], int]], fields: list[str], most: int, length_s: float | None
) -> None:
    counting = Counting(parse_by(fields), TimeBuckets(length_s, UTC) if length_s else None)
    if parts:
        counting.add(block_of(parts))
    groups = counting.groups()
    kept = keep_most_frequent(groups, most)
    assert sum(each.count for each in kept) == sum(each.count for each in groups)
    totals: Counter[Any] = Counter()
    for each in groups:
        totals[each.values] += each.count
    shown = {each.values for each in kept if each.values is not None}
    assert len(shown) == min(most, len(totals))
    left = totals.keys() - shown
    assert not left or max(totals[each] for each in left) <= min(totals[each] for each in shown)
