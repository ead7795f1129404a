"""The receiver gives the same events however what it receives was cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from logengine.protocols.ndjson import (
    NdjsonReceiver,
)
from logengine.protocols.wire import BadHello, Flush, Hello, Lines, TooLarge

MAX_RECORD = 20
lines = st.sampled_from(
    [
        b"",
        b"\r",
        b"a",
        b'{"b":1}',
        b"x" * 19,
        b"x" * 20,
        b"x" * 20 + b"\r",
        b"x" * 21,
        b"x" * 60,
        b"\xff\x00",
    ]
)
hellos = st.sampled_from([b"", b'{"_hello":1}\n', b'{"_hello":2}\n', b'\n{"_hello":1,"x":{}}\n'])
inputs = st.tuples(hellos, st.lists(lines, max_size=8)).map(
    lambda pair: pair[0] + b"\n".join(pair[1])
)


def told(data: bytes, cuts: list[int]) -> list[str]:
    """What the receiver says of `data` received in pieces: a word for each line or event."""
    receiver = NdjsonReceiver(MAX_RECORD)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    events = []
    for start, stop in pairwise(places):
        events += receiver.receive(data[start:stop])
        assert receiver.unfinished_bytes <= MAX_RECORD + 1
    events += receiver.end()
    words: list[str] = []
    for event in events:
        match event:
            case Lines(chunk):
                assert chunk.endswith(b"\n")
                words += [repr(line) for line in chunk.split(b"\n")[:-1] if line.strip(b"\r")]
            case TooLarge():
                words.append("too large")
            case Hello():
                words.append("hello")
            case BadHello():
                words.append("bad hello")
    return words


@given(inputs, st.lists(st.integers(0, 400), max_size=12))
def test_events_do_not_depend_on_how_the_input_was_cut(data: bytes, cuts: list[int]) -> None:
    assert told(data, cuts) == told(data, [])


@given(inputs)
def test_byte_by_byte_is_the_same_too(data: bytes) -> None:
    assert told(data, list(range(len(data)))) == told(data, [])


@given(inputs)
def test_every_line_is_told_once_in_order(data: bytes) -> None:
    words = told(data, [])
    if words[:1] == ["bad hello"]:
        assert words == ["bad hello"]
        return
    expected = [
        "too large" if len(line.rstrip(b"\r")) > MAX_RECORD else repr(line)
        for line in data.split(b"\n")
        if line.strip(b"\r")
    ]
    if words[:1] == ["hello"]:
        expected[0] = "hello"
    assert words == expected


def empty_lines(data: bytes) -> int:
    return data.split(b"\n")[:-1].count(b"")


@given(st.lists(lines, min_size=1, max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_an_empty_line_asks_for_a_commit_of_the_lines_before_it(
    said: list[bytes], cuts: list[int]
) -> None:
    receiver = NdjsonReceiver(MAX_RECORD)
    receiver.receive(b'{"_hello":1}\n')
    data = b"\n".join(said) + b"\n"
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, stop in pairwise(places):
        events = receiver.receive(data[start:stop])
        if (b"\n" + data[:stop]).endswith(b"\n\n"):
            assert isinstance(events[-1], Flush)
        if empty_lines(data[:stop]) == empty_lines(data[:start]):
            assert not any(isinstance(event, Flush) for event in events)


def test_an_empty_line_without_a_hello_before_it_is_only_skipped() -> None:
    assert NdjsonReceiver(MAX_RECORD).receive(b"\n\n") == []
