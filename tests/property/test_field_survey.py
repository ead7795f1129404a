"""The fields of records against a walk through each record, decoded by another JSON library."""

import json
from collections import Counter, defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from logengine.aggregation.field_survey import EXAMPLES_MAX, FieldSurvey
from logengine.filtering.fields import Fields
from logengine.filtering.syntax import parse_field
from logengine.filtering.tree import Each, Name
from logengine.format.block import Block

scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.just(0.5) | st.text("aé\x1b", max_size=2)
)
names = st.sampled_from(["a", "b", "a.b", "and", "1", 'q"\\', "x y", "", "\x1b", "é"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(names, values, max_size=4), min_size=1, max_size=8)


def type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names_of_types = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return "null" if value is None else names_of_types[type(value)]


def walk(value: Any, path: tuple[Any, ...], found: list[tuple[tuple[Any, ...], Any]]) -> None:
    if path:
        found.append((path, value))
    if isinstance(value, dict):
        for name, member in value.items():
            walk(member, (*path, Name(name)), found)
    if isinstance(value, list):
        for item in value:
            walk(item, (*path, Each()), found)


@given(records)
def test_fields_are_those_of_each_record_alone(parts: list[dict[str, Any]]) -> None:
    lines = [
        json.dumps({"_ts": "2026-11-23T20:00:00.000000Z"} | part).encode() + b"\n" for part in parts
    ]
    survey = FieldSurvey()
    for line in lines:
        survey.add(Block("app", 1, 1, line))
    whole = FieldSurvey()
    whole.add(Block("app", 1, len(lines), b"".join(lines)))
    assert whole.summaries() == survey.summaries()

    types: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    having: Counter[Any] = Counter()
    for line in lines:
        found: list[tuple[tuple[Any, ...], Any]] = []
        walk(json.loads(line), (), found)
        for path, value in found:
            types[path][type_of(value)] += 1
        having.update({path for path, _ in found})
    summaries = {each.path: each for each in survey.summaries()}
    assert {path: each.types for path, each in summaries.items()} == types
    assert {path: each.records for path, each in summaries.items()} == having
    assert survey.others == 0

    for summary in summaries.values():
        # What is printed can be used in --where and --by, and finds the examples there.
        fields = Fields([path := parse_field(summary.text)])
        find = fields.finder(path)
        values = {value for line in lines for value in find(fields.decode(line[:-1]))}
        assert set(summary.examples) <= values
        assert len(summary.examples) <= EXAMPLES_MAX
