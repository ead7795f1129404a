"""What the protocol `lines` makes of bytes, wherever they were cut."""

import json
import re
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.daemon.config import parse_config
from logengine.format.record import stamp
from logengine.protocols.lines import LinesReceiver
from logengine.protocols.wire import Event, Lines

PAGE = Path(__file__).parents[2] / "docs" / "lines.md"
MAX_RECORD = 64


def records(events: list[Event]) -> list[dict[str, Any]]:
    found = []
    for event in events:
        assert isinstance(event, Lines)
        assert event.chunk.endswith(b"\n")
        found += [json.loads(line) for line in event.chunk.splitlines()]
    return found


def received(data: bytes, cuts: list[int] | None = None) -> list[dict[str, Any]]:
    """The records of `data`, received in pieces that end at `cuts`."""
    receiver = LinesReceiver(MAX_RECORD)
    places = sorted({cut % (len(data) + 1) for cut in cuts or []} | {0, len(data)})
    events: list[Event] = []
    for start, stop in pairwise(places):
        events += receiver.receive(data[start:stop])
        assert receiver.unfinished_bytes <= MAX_RECORD + 1
    return records(events + receiver.end())


def messages(data: bytes) -> list[str]:
    return [record["message"] for record in received(data)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"text\n", ["text"]),
        (b'{"a":1}\n', ['{"a":1}']),
        (b'{"_hello":1}\n{"_status":1}\n', ['{"_hello":1}', '{"_status":1}']),
        (b"dos\r\n", ["dos"]),
        (b"two\r\r\n", ["two\r"]),
        (b"a\rb\n", ["a\rb"]),
        (b"  indented \n", ["  indented "]),
        (b"\n\r\n \t \n", []),
        (b"nul\0inside\0\n", ["nul\0inside\0"]),
        (b"\0\n", ["\0"]),
        (b"\xff\xfe\n", ["\\xff\\xfe"]),
        (b"cut \xe2\x82\n", ["cut \\xe2\\x82"]),
        ("grüße €\n".encode(), ["grüße €"]),
        ("line\u2028separator\x85\n".encode(), ["line\u2028separator\x85"]),
        (b"\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"]),
        (b"one\nlast without newline", ["one", "last without newline"]),
        (b"", []),
    ],
)
def test_each_line_that_is_not_blank_is_a_message(data: bytes, expected: list[str]) -> None:
    assert messages(data) == expected
    assert all(set(record) == {"message"} for record in received(data))


def test_a_line_of_max_record_bytes_is_whole_with_a_carriage_return_or_without() -> None:
    line = b"x" * MAX_RECORD
    for end in (b"\n", b"\r\n", b"", b"\r"):
        assert received(line + end) == [{"message": line.decode()}]


def test_a_longer_line_comes_in_pieces_that_make_it_up() -> None:
    line = "é" * 100 + "€" * 50 + "x"
    *pieces, last = received(line.encode() + b"\r\nnext\n")[:-1]
    assert len(pieces) == len(line.encode()) // MAX_RECORD
    assert all(piece["partial"] is True for piece in pieces)
    assert "partial" not in last
    assert "".join(piece["message"] for piece in [*pieces, last]) == line
    assert all(len(piece["message"].encode()) <= MAX_RECORD for piece in pieces)
    assert received(line.encode() + b"\nnext")[-1] == {"message": "next"}


def test_pieces_are_there_before_the_line_ends() -> None:
    receiver = LinesReceiver(MAX_RECORD)
    assert records(receiver.receive(b"x" * (3 * MAX_RECORD))) == [
        {"message": "x" * MAX_RECORD, "partial": True},
        {"message": "x" * MAX_RECORD, "partial": True},
    ]
    assert records(receiver.receive(b" \n")) == [
        {"message": "x" * MAX_RECORD, "partial": True},
        {"message": " "},
    ]


def test_a_blank_end_of_a_line_that_was_cut_still_ends_it() -> None:
    for cuts in ([], [MAX_RECORD + 2], list(range(200))):
        assert received(b"x" * MAX_RECORD + b"  \nnext\n", cuts) == [
            {"message": "x" * MAX_RECORD, "partial": True},
            {"message": "  "},
            {"message": "next"},
        ]


def test_what_was_dropped_leaves_no_trace() -> None:
    receiver = LinesReceiver(MAX_RECORD)
    receiver.receive(b"x" * (MAX_RECORD + 10))
    assert receiver.drop_unfinished() == 10
    assert receiver.end() == []
    assert receiver.receive(b"\n") == []


texts = st.one_of(
    st.binary(max_size=3 * MAX_RECORD),
    st.text(max_size=MAX_RECORD).map(str.encode),
    st.sampled_from([b"", b" ", b"\r", b'{"a":1}', b"x" * MAX_RECORD, b"x" * (MAX_RECORD + 1)]),
)
inputs = st.lists(texts, max_size=8).map(b"\n".join)


@given(inputs, st.lists(st.integers(0, 2000), max_size=12))
def test_records_do_not_depend_on_how_the_input_was_cut(data: bytes, cuts: list[int]) -> None:
    assert received(data, cuts) == received(data)


@given(inputs)
def test_byte_by_byte_is_the_same_too(data: bytes) -> None:
    assert received(data, list(range(len(data)))) == received(data)


@given(inputs)
def test_every_line_is_there_once_whole_and_in_order(data: bytes) -> None:
    whole = [""]
    for record in received(data):
        whole[-1] += record["message"]
        if "partial" not in record:
            whole.append("")
    assert whole.pop() == ""
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    assert whole == [
        line.decode("utf-8", "backslashreplace")
        for line in lines
        if line.strip(b" \t\r") or len(line) > MAX_RECORD
    ]


@given(inputs)
def test_each_record_is_stored_as_it_is(data: bytes) -> None:
    receiver = LinesReceiver(MAX_RECORD)
    for event in (*receiver.receive(data), *receiver.end()):
        assert isinstance(event, Lines)
        stored, count = stamp(event.chunk, b'{"_ts":"T"')
        values = [json.loads(line) for line in stored.splitlines()]
        assert len(values) == count
        assert [{k: v for k, v in value.items() if k != "_ts"} for value in values] == records(
            [event]
        )


def test_a_line_that_never_ends_takes_no_more_memory_than_one_record() -> None:
    receiver = LinesReceiver(1000)
    tracemalloc.start()
    for _ in range(2000):
        receiver.receive(b"x" * 700)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 50_000


def test_the_configuration_that_the_page_shows_is_right() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    listeners = parse_config(shown, "docs/lines.md").listen
    assert {(listen.protocol, listen.type) for listen in listeners} == {
        ("lines", "stream"),
        ("lines", "datagram"),
    }


def test_records_end_where_lines_do() -> None:
    receiver = LinesReceiver(MAX_RECORD)
    assert receiver.whole_bytes(b"one\ntwo\nthr") == 8
    assert receiver.whole_bytes(b"on") == 0
    assert receiver.bytes_of(b"one\ntwo\nthr", 1) == 4
    assert receiver.bytes_of(b"one\ntwo\nthr", 5) == 11
