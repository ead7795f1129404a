"""What the protocol `journal-stdout` makes of a stream, wherever its bytes were cut."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.protocols.journal_stdout import (
    HEADER_LINE_BYTES_MAX,
    HEADER_LINES,
    PROTOCOL,
    JournalStdoutReceiver,
)
from logengine.protocols.wire import Event, Lines, Malformed, Opening

MAX_RECORD = 40
# What systemd-cat(1) was seen to send with `-t mycat -p 4`.
HEADER = b"mycat\n\n4\n1\n0\n0\n0\n"
CAT = {"level": "warning", "app": "mycat"}


def events_of(data: bytes, cuts: list[int] | None = None) -> list[Event]:
    receiver = JournalStdoutReceiver(MAX_RECORD)
    places = sorted({cut % (len(data) + 1) for cut in cuts or []} | {0, len(data)})
    events: list[Event] = []
    for start, stop in pairwise(places):
        events += receiver.receive(data[start:stop])
        assert receiver.unfinished_bytes <= HEADER_LINES * (HEADER_LINE_BYTES_MAX + 1)
    events += receiver.end()
    assert receiver.unfinished_bytes == 0
    return events


def received(data: bytes, cuts: list[int] | None = None) -> list[dict[str, Any]]:
    found = []
    for event in events_of(data, cuts):
        assert isinstance(event, Lines)
        found += [json.loads(line) for line in event.chunk.splitlines()]
    return found


def refused(data: bytes) -> str:
    (event,) = events_of(data)
    assert isinstance(event, Malformed)
    return event.reason


def test_lines_have_the_fields_of_the_header() -> None:
    assert received(HEADER + b"one\ntwo\n") == [CAT | {"message": "one"}, CAT | {"message": "two"}]
    assert received(b"\n\n30\n0\n0\n0\n0\nx\n") == [
        {"level": "info", "facility": "daemon", "message": "x"}
    ]
    assert received(b" my app \nx.service\n190\nyes\nno\nfalse\nOFF\nx\n") == [
        {"level": "info", "facility": "local7", "app": "my app", "unit": "x.service"}
        | {"message": "x"}
    ]
    # Facilities that have no name.
    assert received(b"\n\n999\n1\n0\n0\n0\nx\n") == [{"level": "debug", "message": "x"}]


def test_a_line_may_begin_with_its_severity_if_the_header_says_so() -> None:
    lines = b"<3>bad\n<0>\n<7> \nplain\n<003>long\n<8>no\n<13>no\n< 3>no\n<3\n <3>no\n"
    assert received(HEADER + lines) == [
        {"level": "error", "app": "mycat", "message": "bad"},
        CAT | {"message": "plain"},
        {"level": "error", "app": "mycat", "message": "long"},
        *(CAT | {"message": text} for text in ("<8>no", "<13>no", "< 3>no", "<3", " <3>no")),
    ]
    without = HEADER.replace(b"\n1\n", b"\n0\n")
    assert received(without + b"<3>as it is\n") == [CAT | {"message": "<3>as it is"}]


def test_lf_and_nul_and_the_end_of_the_connection_end_a_line() -> None:
    data = HEADER + b"a\r\nb\0c\n\n\0 \t\n\xff\x1b\nlast"
    assert [record["message"] for record in received(data)] == [
        *("a", "b", "c", "\\xff\x1b", "last")
    ]


def test_a_line_longer_than_a_record_comes_in_pieces_of_one_severity() -> None:
    found = received(HEADER + b"<2>" + b"x" * 100 + b"\nshort\n")
    assert "".join(record["message"] for record in found[:-1]) == "x" * 100
    assert [record.get("partial") for record in found] == [True, True, None, None]
    assert [record["level"] for record in found] == [*["critical"] * 3, "warning"]
    # A rest that is blank is a piece too.
    found = received(HEADER + b"y" * 40 + b"  \n")
    assert [record["message"] for record in found] == ["y" * 40, "  "]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a\nb\nhello\nworld\n1\n2\n3\n", "line 3 of the header is 'hello'"),
        (b"a\nb\n-1\n1\n0\n0\n0\n", "line 3 of the header is '-1'"),
        (b"a\nb\n1000\n1\n0\n0\n0\n", "line 3 of the header is '1000'"),
        ("a\nb\n²\n1\n0\n0\n0\n".encode(), "line 3 of the header is '²'"),
        (b"a\nb\n\n1\n0\n0\n0\n", "line 3 of the header is ''"),
        (b"a\nb\n6\n2\n0\n0\n0\n", "line 4 of the header is '2'; expected 0 or 1"),
        (b"a\nb\n6\n1\n0\n0\nmaybe\n", "line 7 of the header is 'maybe'"),
        (b"a" * (HEADER_LINE_BYTES_MAX + 1), "a line of the header is longer than 4096 bytes"),
        (b"a\n" + b"b" * 5000 + b"\n6\n1\n0\n0\n0\n", "a line of the header is longer than"),
        (b"a\nb\n6\n1\n", "the connection ended inside the header"),
        (b"\0" * 10, "the connection ended inside the header"),
    ],
)
def test_a_header_that_is_none_ends_the_connection(data: bytes, reason: str) -> None:
    assert reason in refused(data)


def test_after_a_header_that_is_none_nothing_is_taken() -> None:
    receiver = JournalStdoutReceiver(MAX_RECORD)
    (event,) = receiver.receive(b"a\nb\nhello\n1\n0\n0\n0\nx\n")
    assert isinstance(event, Malformed)
    assert receiver.receive(b"more\n") == receiver.end() == []


def test_a_program_without_output_leaves_no_record() -> None:
    assert events_of(HEADER) == events_of(b"") == []


parts = st.lists(
    st.sampled_from([b"<3>", b"x" * 15, b"y" * 45, b"\n", b"\0", b"\r\n", b" ", "é".encode(), b"<"])
).map(b"".join)


@given(st.sampled_from([HEADER, b"", b"\n\n", b"a\nb\n6\n"]), parts, st.lists(st.integers(0, 500)))
def test_records_do_not_depend_on_how_the_stream_was_cut(
    header: bytes, lines: bytes, cuts: list[int]
) -> None:
    def told(cuts: list[int]) -> list[object]:
        found: list[object] = []
        for event in events_of(header + lines, cuts):
            if isinstance(event, Lines):
                found += event.chunk.splitlines()
            else:
                found.append(event)
        return found

    assert told(cuts) == told([])


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_never_raise(data: bytes, has_header: bool) -> None:
    events_of(HEADER * has_header + data)


@pytest.mark.parametrize("seen", [0, 3, 8, len(HEADER), len(HEADER) + 2])
def test_the_lines_of_the_header_are_not_counted_as_records(seen: int) -> None:
    data = HEADER + b"one\ntwo\0three\nfou"
    receiver = PROTOCOL.receiver(MAX_RECORD)
    receiver.receive(data[:seen])
    waiting = data[seen:]
    assert receiver.opening(waiting) is Opening.RECORD
    assert receiver.whole_bytes(waiting) == len(waiting) - len(b"fou")
    assert waiting[receiver.bytes_of(waiting, 1) :] == b"two\0three\nfou"
    assert waiting[receiver.bytes_of(waiting, 2) :] == b"three\nfou"
    assert receiver.bytes_of(waiting, 4) == len(waiting)


def test_an_unfinished_line_or_header_can_be_dropped() -> None:
    receiver = JournalStdoutReceiver(MAX_RECORD)
    receiver.receive(b"a\nb")
    assert receiver.drop_unfinished() == 3
    receiver.receive(HEADER + b"<3>" + b"x" * 60)
    assert receiver.drop_unfinished() > 0
    (event,) = receiver.receive(b"next\n")
    assert isinstance(event, Lines)
    assert json.loads(event.chunk) == CAT | {"message": "next"}
