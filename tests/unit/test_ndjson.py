"""Hellos and sizes, as the daemon's side of the protocol sees them."""

import json

import pytest

from logengine.protocols.ndjson import (
    BadHello,
    Hello,
    Lines,
    NdjsonReceiver,
    TooLarge,
    ack_answer,
    decode_hello,
    error_answer,
    goodbye_answer,
    too_large_answer,
    welcome_answer,
)


@pytest.mark.parametrize(
    ("line", "hello"),
    [
        (b'{"_hello":1}\n', Hello(None, None, None)),
        (b'{"_hello":1,"stream":"app"}\n', Hello("app", None, None)),
        (b' { "_hello" : 1, "producer":"web-1"}\r\n', Hello(None, "web-1", None)),
        (b'{"_hello":1,"producer":"p","first":9,"more":[1]}\n', Hello(None, "p", 9)),
    ],
)
def test_a_first_line_that_begins_with_hello_is_one(line: bytes, hello: Hello) -> None:
    assert NdjsonReceiver(1000).receive(line) == [hello]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"_hello":2}\n', "unsupported_version"),
        (b'{"_hello":1,"stream":"../etc"}\n', "invalid_stream"),
        (b'{"_hello":1,"stream":"App"}\n', "invalid_stream"),
        (b'{"_hello":1,"producer":""}\n', "invalid_producer"),
        (b'{"_hello":1,"producer":"a\\nb"}\n', "invalid_producer"),
        (b'{"_hello":1,"first":0}\n', "invalid_first"),
        (b'{"_hello":1,"first":9007199254740993}\n', "invalid_first"),
        (b'{"_hello":1,"first":' + b"9" * 400 + b"}\n", "invalid_first"),
        (b'{"_hello":"1"}\n', "bad_hello"),
        (b'{"_hello":1\n', "bad_hello"),
        (b'{"_hello":1,"stream":"\xff"}\n', "bad_hello"),
    ],
)
def test_a_hello_that_cannot_be_honoured_says_what_would_be_right(line: bytes, error: str) -> None:
    receiver = NdjsonReceiver(1000)
    (event,) = receiver.receive(line + b"more\n")
    assert isinstance(event, BadHello)
    answer = json.loads(event.answer)
    assert answer["error"] == error
    assert "expected" in answer
    assert receiver.receive(b"and more\n") == []


@pytest.mark.parametrize(
    "line", [b'{"a":1,"_hello":1}\n', b'{"\\u005fhello":1}\n', b'["_hello",1]\n', b'"_hello":1\n']
)
def test_an_ordinary_first_line_is_no_hello(line: bytes) -> None:
    assert NdjsonReceiver(1000).receive(line) == [Lines(line)]


def test_a_hello_counts_only_on_the_first_line() -> None:
    assert NdjsonReceiver(1000).receive(b'a\n{"_hello":1}\n') == [Lines(b'a\n{"_hello":1}\n')]


def test_a_record_of_just_max_record_is_taken_and_one_byte_more_is_not() -> None:
    receiver = NdjsonReceiver(8)
    assert receiver.receive(b"12345678\n123456789\n") == [Lines(b"12345678\n"), TooLarge()]


def test_a_line_too_large_is_told_before_it_ends_and_not_kept() -> None:
    receiver = NdjsonReceiver(8)
    assert receiver.receive(b"x" * 100) == [TooLarge()]
    assert receiver.unfinished_bytes == 0
    assert receiver.receive(b"y" * 1000) == []
    assert receiver.receive(b"end\nnext\n") == [Lines(b"next\n")]


def test_an_unfinished_line_counts_at_the_end_or_is_dropped() -> None:
    receiver = NdjsonReceiver(100)
    receiver.receive(b"one\ntwo")
    assert receiver.end() == [Lines(b"two\n")]
    receiver.receive(b"three")
    assert receiver.drop_unfinished() == 5
    assert receiver.end() == []


def test_answers_are_lines_of_json() -> None:
    assert json.loads(welcome_answer(5121, 1048576)) == {
        "welcome": 1,
        "next": 5121,
        "max_record": 1048576,
    }
    assert json.loads(ack_answer(6200)) == {"ack": 6200}
    assert json.loads(too_large_answer(6201, 10)) == {
        "error": "record_too_large",
        "record": 6201,
        "limit": 10,
    }
    assert json.loads(error_answer("fenced")) == {"error": "fenced"}
    assert json.loads(goodbye_answer("stopping")) == {"goodbye": "stopping"}
    assert decode_hello(b"{}") != Hello(None, None, None)
