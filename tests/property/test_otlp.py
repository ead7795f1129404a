"""OTLP: no bytes do harm, and both encodings mean the same."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from logengine.errors import MalformedInput
from logengine.protocols.otlp import Encoding, decode
from tests.unit.test_otlp import ALL_MAX, MAX_RECORD, attributes, in_protobuf, request, value_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
        st.binary(max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    record = {
        "timeUnixNano": draw(st.integers(0, 2**64 - 1).map(str)),
        "severityNumber": draw(st.integers(0, 30)),
        "severityText": draw(TEXTS),
        "body": draw(VALUES.map(value_of)),
        "attributes": attributes(draw(st.dictionaries(TEXTS, VALUES, max_size=3))),
        "traceId": draw(st.binary(min_size=16, max_size=16)).hex(),
        "flags": draw(st.integers(0, 2**32 - 1)),
    }
    return {key: record[key] for key in draw(st.sets(st.sampled_from(sorted(record))))}


@given(st.lists(records(), max_size=4), st.dictionaries(TEXTS, VALUES, max_size=3))
def test_both_encodings_of_a_request_give_the_same_lines_of_json(
    said: list[dict[str, Any]], resource: dict[str, Any]
) -> None:
    whole = request(*said, resource=resource)
    found = decode(json.dumps(whole).encode(), Encoding.JSON, MAX_RECORD, ALL_MAX)
    assert found == decode(in_protobuf(whole), Encoding.PROTOBUF, MAX_RECORD, ALL_MAX)
    lines = found.lines.splitlines(keepends=True)
    assert len(lines) == len(said)
    for line in lines:
        assert line.endswith(b"}\n")
        assert isinstance(json.loads(line), dict)


@given(st.binary(max_size=200), st.sampled_from(Encoding))
def test_arbitrary_bytes_are_lines_or_malformed(body: bytes, encoding: Encoding) -> None:
    try:
        found = decode(body, encoding, MAX_RECORD, ALL_MAX)
    except MalformedInput:
        return
    assert all(isinstance(json.loads(line), dict) for line in found.lines.splitlines())


@given(st.lists(records(), min_size=1, max_size=3), st.data())
def test_a_request_that_is_damaged_is_lines_or_malformed(
    said: list[dict[str, Any]], data: st.DataObject
) -> None:
    for encoding, whole in (
        (Encoding.PROTOBUF, in_protobuf(request(*said))),
        (Encoding.JSON, json.dumps(request(*said)).encode()),
    ):
        damaged = bytearray(whole)
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        try:
            found = decode(bytes(damaged), encoding, MAX_RECORD, ALL_MAX)
        except MalformedInput:
            continue
        assert all(isinstance(json.loads(line), dict) for line in found.lines.splitlines())
