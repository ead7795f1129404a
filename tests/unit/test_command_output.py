"""What becomes of each line that a command writes."""

import json

import pytest

from logengine.command.command_output import OutputLines

MAX_RECORD = 100


def records(data: bytes, max_record: int = MAX_RECORD) -> list[dict[str, object]]:
    output = OutputLines(1)
    lines = output.receive(data, max_record) + output.end(max_record)
    assert all(len(line) <= max_record for line in lines.splitlines())
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b"plain", {"fd": 1, "message": "plain"}),
        (b"  indented\r", {"fd": 1, "message": "  indented"}),
        ("ä\u2028".encode(), {"fd": 1, "message": "ä\u2028"}),
        (b"\x00\x1b[31m", {"fd": 1, "message": "\x00\x1b[31m"}),
        (b"a\xff\xe2\x82", {"fd": 1, "message": r"a\xff\xe2\x82"}),
        (b'{"event":"hi"}', {"fd": 1, "event": "hi"}),
        (b' { "event" : "hi" } \r', {"fd": 1, "event": "hi"}),
        (b"{}", {"fd": 1}),
        (b"{ }", {"fd": 1}),
        (b'{"fd":7}', {"fd": 7}),
        (b'{"\\u0066d":null}', {"fd": None}),
        (b"[1]", {"fd": 1, "message": "[1]"}),
        (b'{"a":1}{"b":2}', {"fd": 1, "message": '{"a":1}{"b":2}'}),
        (b'{"a":NaN}', {"fd": 1, "message": '{"a":NaN}'}),
        (b'{"a":"\xff"}', {"fd": 1, "message": r'{"a":"\xff"}'}),
        (b'{"_hello":1}', {"fd": 1, "_hello": 1}),
    ],
)
def test_a_line_becomes_a_record(line: bytes, record: dict[str, object]) -> None:
    assert records(line + b"\n") == [record]


def test_the_bytes_of_an_object_are_kept() -> None:
    output = OutputLines(2)
    assert output.receive(b'{"n":1.50,"n":2}\n', MAX_RECORD) == b'{"fd":2,"n":1.50,"n":2}\n'


def test_blank_lines_are_no_records() -> None:
    assert records(b"\n \t\r\na\n\n  ") == [{"fd": 1, "message": "a"}]


def test_a_last_line_needs_no_newline() -> None:
    assert [record["message"] for record in records(b"a\nb")] == ["a", "b"]


def test_nothing_is_told_of_a_line_before_its_end() -> None:
    output = OutputLines(1)
    assert output.receive(b"half", MAX_RECORD) == b""
    assert output.end(MAX_RECORD) == b'{"fd":1,"message":"half"}\n'
    assert output.end(MAX_RECORD) == b""


def test_a_line_that_just_fits_is_one_record() -> None:
    room = MAX_RECORD - len(b'{"fd":1,"message":""}')
    assert records(b"x" * room + b"\nnext\n") == [
        {"fd": 1, "message": "x" * room},
        {"fd": 1, "message": "next"},
    ]


def test_a_longer_line_comes_in_pieces_marked_partial() -> None:
    room = MAX_RECORD - len(b'{"fd":1,"message":"","partial":true}')
    line = b"x" * (2 * room + 30)
    assert records(line + b"\nnext\n") == [
        {"fd": 1, "message": "x" * room, "partial": True},
        {"fd": 1, "message": "x" * room, "partial": True},
        {"fd": 1, "message": "x" * 30},
        {"fd": 1, "message": "next"},
    ]


def test_an_object_that_does_not_fit_is_text_in_pieces() -> None:
    line = b'{"a":"' + b"x" * MAX_RECORD + b'"}'
    pieces = records(line)
    assert "".join(str(piece["message"]) for piece in pieces).encode() == line
    assert [piece.get("partial", False) for piece in pieces] == [True, False]


def test_the_rest_of_a_cut_line_is_no_object_even_if_it_looks_like_one() -> None:
    room = MAX_RECORD - len(b'{"fd":1,"message":"","partial":true}')
    *_, last = records(b"x" * room + b'{"a":' + b"1" * 30 + b"}")
    assert str(last["message"]).startswith('{"a":')


def test_memory_is_bounded_though_a_line_never_ends() -> None:
    output = OutputLines(1)
    for _ in range(1000):
        output.receive(b"x" * 64, MAX_RECORD)
        assert len(output._begun) <= MAX_RECORD
