"""The records of what a command writes are the same however it was cut, and lose nothing."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from logengine.command.command_output import OutputLines

lines = st.one_of(
    st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"")),
    st.text(max_size=300).map(lambda line: line.encode("utf-8", "replace").replace(b"\n", b"")),
    st.sampled_from([b"", b"\r", b" ", b"{}", b'{"a":1}', b'{"fd":3}', b"x" * 43 + b"\r"]),
    st.tuples(
        st.sampled_from([b"x", b" ", b"\r", "€".encode(), b"\x01"]), st.integers(40, 140)
    ).map(lambda pair: pair[0] * pair[1]),
    st.integers(30, 140).map(lambda size: b'{"fd":"' + b"x" * size + b'"}'),
    st.integers(30, 140).map(lambda size: b"{}" + b" " * size),
)
outputs = st.lists(lines, max_size=6).map(b"\n".join)
limits = st.integers(64, 160)


def told(data: bytes, cuts: list[int], max_record: int) -> list[dict[str, Any]]:
    output = OutputLines(1)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    said = b"".join(
        output.receive(data[start:stop], max_record) for start, stop in pairwise(places)
    )
    said += output.end(max_record)
    assert said.endswith(b"\n") or not said
    assert all(len(line) <= max_record for line in said.split(b"\n"))
    return [json.loads(line) for line in said.split(b"\n")[:-1]]


@given(outputs, st.lists(st.integers(0, 2000), max_size=12), limits)
def test_records_do_not_depend_on_how_the_output_was_cut(
    data: bytes, cuts: list[int], max_record: int
) -> None:
    assert told(data, cuts, max_record) == told(data, [], max_record)


@given(outputs, limits)
def test_byte_by_byte_is_the_same_too(data: bytes, max_record: int) -> None:
    assert told(data, list(range(len(data))), max_record) == told(data, [], max_record)


@given(outputs, limits)
def test_pieces_put_together_are_the_lines(data: bytes, max_record: int) -> None:
    messages = [""]
    for record in told(data, [], max_record):
        if "message" in record:
            messages[-1] += record["message"]
            if not record.get("partial"):
                messages.append("")
    assert messages.pop() == ""
    texts = [
        line.removesuffix(b"\r").decode("utf-8", "backslashreplace") for line in data.split(b"\n")
    ]
    # What has no message is an object or blank; both are shorter than a record.
    for text in texts:
        if messages and text == messages[0]:
            messages.pop(0)
        else:
            assert len(text.encode()) <= max_record
            assert not text.strip(" \t\r") or json.loads(text) is not None
    assert not messages
