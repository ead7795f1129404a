"""Hellos and sizes, as the daemon's side of the protocol sees them."""

import json
import tracemalloc

import pytest

from logengine.protocols.ndjson import (
    NdjsonReceiver,
    ack_answer,
    begins_with_hello,
    begins_with_status_request,
    decode_hello,
    error_answer,
    goodbye_answer,
    too_large_answer,
    welcome_answer,
)
from logengine.protocols.wire import BadHello, Hello, Lines, StatusRequest, TooLarge


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


@pytest.mark.parametrize("cut", [None, 1, 5])
def test_a_first_line_too_large_is_refused_and_no_hello_counts_behind_it(cut: int | None) -> None:
    data = b"x" * 30 + b'\n{"_hello":1}\nmore\n'
    receiver = NdjsonReceiver(20)
    size = cut or len(data)
    events = [
        event
        for start in range(0, len(data), size)
        for event in receiver.receive(data[start : start + size])
    ]
    assert events[0] == TooLarge()
    chunks = b"".join(event.chunk for event in events[1:] if isinstance(event, Lines))
    assert chunks == b'{"_hello":1}\nmore\n'
    assert receiver.unfinished_bytes == 0


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("cut", [1, 2, 7, 100])
def test_the_limit_is_the_same_to_the_byte_however_a_line_comes(ending: bytes, cut: int) -> None:
    for length, taken in [(19, True), (20, True), (21, False), (22, False), (60, False)]:
        receiver = NdjsonReceiver(20)
        data = b"x" * length + ending + b"next" + ending
        events = []
        for start in range(0, len(data), cut):
            events += receiver.receive(data[start : start + cut])
            assert receiver.unfinished_bytes <= 21
        kept = b"".join(event.chunk for event in events if isinstance(event, Lines))
        assert kept == (data if taken else b"next" + ending)
        assert events.count(TooLarge()) == (0 if taken else 1)


class CountedBytes(bytes):
    """Bytes that count how much of them is searched or copied."""

    touched = 0

    def rfind(self, *args: object) -> int:
        CountedBytes.touched += len(self)
        return super().rfind(*args)  # type: ignore[arg-type]


def test_a_megabyte_byte_by_byte_is_looked_at_once() -> None:
    receiver = NdjsonReceiver(1 << 20)
    pieces = [CountedBytes(b"x")] * ((1 << 20) - 1)
    CountedBytes.touched = 0
    for piece in pieces:
        assert receiver.receive(piece) == []
    (event,) = receiver.receive(b"\n")
    assert isinstance(event, Lines)
    assert len(event.chunk) == 1 << 20
    assert CountedBytes.touched <= 2 * len(pieces)


def test_nothing_is_held_of_a_closed_or_refused_line() -> None:
    refused, closed = NdjsonReceiver(20), NdjsonReceiver(100)
    refused.receive(b"x" * 30)
    closed.receive(b'{"_hello":2}\n')
    for receiver in (refused, closed):
        for _ in range(100):
            assert receiver.receive(b"y" * 100) == []
            assert receiver.unfinished_bytes == 0
        assert receiver.end() == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"_hello":99999999999999999999999999}\n',
        b'{"_hello":' + b"9" * 5000 + b"}\n",
        b'{"_hello":-1}\n',
        b'{"_hello":true}\n',
        b'{"_hello":null}\n',
        b'{"_hello":1,"stream":5}\n',
        b'{"_hello":1,"producer":["p"]}\n',
        b'{"_hello":1,"first":-99999999999999999999}\n',
        b'{"_hello":1,"first":"1"}\n',
        b'{"_hello":1}{"a":1}\n',
        b'{"_hello":1,"x":' + b"[" * 3000 + b"]" * 3000 + b"}\n",
        b'{"_hello":1,"producer":"\xc2\x85"}\n',
    ],
)
def test_no_hello_ends_the_receiver(line: bytes) -> None:
    (event,) = NdjsonReceiver(100_000).receive(line)
    assert isinstance(event, BadHello)
    assert json.loads(event.answer)["expected"]


@pytest.mark.parametrize("line", [b"x" * 20 + b"\r\r\n", b"\r" * 30 + b"\n"])
def test_many_carriage_returns_have_one_outcome_however_they_come(line: bytes) -> None:
    whole = NdjsonReceiver(20).receive(line)
    receiver = NdjsonReceiver(20)
    pieces = [event for byte in line for event in receiver.receive(bytes([byte]))]
    assert pieces.count(TooLarge()) == whole.count(TooLarge())


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_hello_of_just_max_record_is_one(ending: bytes) -> None:
    line = b'{"_hello":1}'
    assert NdjsonReceiver(len(line)).receive(line + ending) == [Hello(None, None, None)]


def test_an_unfinished_line_takes_about_the_memory_it_is_counted_with() -> None:
    receiver = NdjsonReceiver(1 << 20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(50_000):
            receiver.receive(bytes([65 + number % 26, 97 + number // 26 % 26]))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert receiver.unfinished_bytes == 100_000
    assert taken < 3 * receiver.unfinished_bytes


@pytest.mark.parametrize("line", [b'{"_status":1}\n', b' { "_status" : 1 }\r\n'])
def test_a_first_line_may_ask_for_the_status_and_nothing_comes_after_it(line: bytes) -> None:
    receiver = NdjsonReceiver(1000)
    assert receiver.receive(line + b"more\n") == [StatusRequest()]
    assert receiver.receive(b"more\n") == []
    assert begins_with_status_request(line + b"more")
    assert not begins_with_status_request(line[:-1])


@pytest.mark.parametrize("version", [b"2", b"0", b"9" * 5000])
def test_a_status_of_another_version_is_refused(version: bytes) -> None:
    (event,) = NdjsonReceiver(10_000).receive(b'{"_status":%s}\n' % version)
    assert isinstance(event, BadHello)
    assert json.loads(event.answer)["error"] == "unsupported_version"


@pytest.mark.parametrize(
    "line",
    [b'{"_status":"up"}\n', b'{"_status":1,"a":2}\n', b'{"a":1,"_status":1}\n', b'"_status":1\n'],
)
def test_a_record_with_a_key_named_status_is_a_record(line: bytes) -> None:
    assert NdjsonReceiver(1000).receive(line) == [Lines(line)]
    assert not begins_with_status_request(line)


def test_only_the_first_line_may_ask_for_the_status() -> None:
    lines = b'{"a":1}\n{"_status":1}\n'
    assert NdjsonReceiver(1000).receive(lines) == [Lines(lines)]


def test_a_hello_is_seen_before_its_line_is_whole() -> None:
    assert begins_with_hello(b'\r\n {"_hello":1,"str')
    assert not begins_with_hello(b'{"a":1}\n{"_hello":1}\n')
