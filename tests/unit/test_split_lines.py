"""Lines that Docker splits into parts: joined if all come in order, and otherwise as they came."""

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.protocols.forward import ForwardReceiver
from logengine.protocols.split_lines import UNDER_WAY_MAX, Part, SplitLines
from logengine.protocols.wire import Chunk, Event, Lines, Malformed, TooLarge

MAX_RECORD = 4096
TIME = 1795466382
PART_BYTES = 100  # Docker's are 16 KiB
ID = "6f2c1d0f9bb8a1b0c2b7b7a1a4f36fd0a8fe8a5d0f2b4f6c54e9e2f1a3c4d5e6"
CONTAINER = "8d1f3a5b7c9e"

pack = msgspec.msgpack.encode


def text(content: bytes) -> msgspec.Raw:
    """MessagePack's text of any bytes, as Go writes it."""
    return msgspec.Raw(b"\xdb" + len(content).to_bytes(4, "big") + content)


def part(
    content: bytes, ordinal: int, *, last: bool = False, line: str = ID, name: str = CONTAINER
) -> dict[str, Any]:
    """The map of a part, as Docker's driver makes it."""
    return {
        "container_id": name,
        "container_name": "/web",
        "source": "stdout",
        "log": text(content),
        "partial_message": "true",
        "partial_id": line,
        "partial_ordinal": str(ordinal),
        "partial_last": "true" if last else "false",
    }


def message(fields: dict[str, Any]) -> bytes:
    """A message of Go's fluent-logger without acks: four parts, the last one an empty map."""
    return pack([CONTAINER, TIME, fields, {}])


def parts_of(content: bytes, line: str = ID, name: str = CONTAINER) -> list[dict[str, Any]]:
    starts = range(0, max(1, len(content)), PART_BYTES)
    return [
        part(
            content[start : start + PART_BYTES],
            ordinal,
            last=start + PART_BYTES >= len(content),
            line=line,
            name=name,
        )
        for ordinal, start in enumerate(starts, 1)
    ]


def records(events: list[Event]) -> list[dict[str, Any]]:
    lines = b"".join(
        event.lines if isinstance(event, Chunk) else event.chunk
        for event in events
        if isinstance(event, Lines | Chunk)
    )
    return [json.loads(line) for line in lines.splitlines()]


def received(
    data: bytes, cuts: list[int] | None = None, limit: int = MAX_RECORD
) -> list[dict[str, Any]]:
    receiver = ForwardReceiver(limit)
    places = sorted({cut % (len(data) + 1) for cut in cuts or []} | {0, len(data)})
    events = [
        event for start, stop in pairwise(places) for event in receiver.receive(data[start:stop])
    ]
    events += receiver.end()
    assert receiver.unfinished_bytes == 0
    return records(events)


def log_of(record: dict[str, Any]) -> bytes:
    if "log" in record:
        return str(record["log"]).encode()
    return msgspec.json.decode(json.dumps(record["log_base64"]), type=bytes)


def test_the_parts_of_a_line_are_one_record_with_the_fields_of_the_first() -> None:
    data = b"".join(map(message, parts_of(b"a" * PART_BYTES * 2 + b"end")))
    assert received(data) == [
        {
            "time": "2026-11-23T20:39:42.000000Z",
            "tag": CONTAINER,
            "container_id": CONTAINER,
            "container_name": "/web",
            "source": "stdout",
            "log": "a" * PART_BYTES * 2 + "end",
        }
    ]


def test_a_character_that_the_parts_cut_is_whole_again() -> None:
    content = "ä".encode() * PART_BYTES
    data = b"".join(map(message, parts_of(b"x" + content)))
    (record,) = received(data)
    assert record["log"] == "x" + content.decode()


def test_what_is_not_utf8_as_a_whole_is_marked_base64() -> None:
    content = b"\xff" + b"a" * 2 * PART_BYTES
    (record,) = received(b"".join(map(message, parts_of(content))))
    assert log_of(record) == content
    assert "log" not in record


def test_parts_are_kept_as_they_came_if_the_rest_never_comes() -> None:
    first, second, _ = parts_of(b"a" * 3 * PART_BYTES)
    found = received(message(first) + message(second) + message({"log": "whole"}))
    assert [record["log"] for record in found] == ["whole", "a" * PART_BYTES, "a" * PART_BYTES]
    assert [record.get("partial_ordinal") for record in found] == [None, "1", "2"]


def test_a_part_is_kept_until_its_line_is_complete() -> None:
    receiver = ForwardReceiver(MAX_RECORD)
    first, last = parts_of(b"a" * 2 * PART_BYTES)
    assert receiver.receive(message(first)) == []
    assert receiver.has_parts
    assert receiver.unfinished_bytes > PART_BYTES
    assert len(records(receiver.receive(message(last)))) == 1
    assert not receiver.has_parts
    assert receiver.unfinished_bytes == 0


def test_only_lines_that_have_waited_for_a_whole_turn_are_given_up() -> None:
    receiver = ForwardReceiver(MAX_RECORD)
    receiver.receive(message(part(b"old", 1, line="old")))
    assert receiver.old_parts() == []
    receiver.receive(message(part(b"new", 1, line="new")))
    assert [record["log"] for record in records(receiver.old_parts())] == ["old"]
    assert [
        record["log"]
        for record in records(receiver.receive(message(part(b"er", 2, last=True, line="new"))))
    ] == ["newer"]
    assert [
        record["log"]
        for record in records(receiver.receive(message(part(b"er", 2, last=True, line="old"))))
    ] == ["er"]


@pytest.mark.parametrize("ordinals", [(2, 3), (1, 3), (1, 1), (1, 2, 2), (3, 2, 1)])
def test_parts_out_of_order_are_not_joined_and_none_is_lost(ordinals: tuple[int, ...]) -> None:
    data = b"".join(message(part(b"p%d" % each, each)) for each in ordinals)
    assert [record["log"] for record in received(data)] == [f"p{each}" for each in ordinals]


def test_the_same_id_in_another_container_is_another_line() -> None:
    one, two = parts_of(b"1" * 150, name="one"), parts_of(b"2" * 150, name="two")
    data = b"".join(message(each) for pair in zip(one, two, strict=True) for each in pair)
    assert [record["log"] for record in received(data)] == ["1" * 150, "2" * 150]


def test_a_line_that_would_be_too_long_stays_in_parts() -> None:
    content = b"a" * (MAX_RECORD + 1)
    found = received(b"".join(map(message, parts_of(content))))
    assert len(found) == len(parts_of(content))
    assert b"".join(map(log_of, found)) == content


def test_the_longest_line_that_is_joined_is_max_record() -> None:
    def joined(size: int) -> list[dict[str, Any]]:
        halves = part(b"a" * (size // 2), 1), part(b"a" * (size - size // 2), 2, last=True)
        return received(b"".join(map(message, halves)))

    longest = next(size for size in range(MAX_RECORD, 0, -1) if len(joined(size)) == 1)
    (record,) = joined(longest)
    assert len(msgspec.json.encode(record)) == MAX_RECORD


def test_the_oldest_lines_are_given_up_when_there_are_too_many() -> None:
    receiver = ForwardReceiver(1024 * 1024)
    for number in range(UNDER_WAY_MAX):
        assert receiver.receive(message(part(b"%d" % number, 1, line=str(number)))) == []
    given_up = records(receiver.receive(message(part(b"more", 1, line="more"))))
    assert [record["log"] for record in given_up] == ["0"]


def test_what_is_held_is_bounded() -> None:
    receiver = ForwardReceiver(MAX_RECORD)
    stored = 0
    for number in range(100):
        events = receiver.receive(message(part(b"a" * 3000, 1, line=str(number))))
        stored += len(records(events))
        assert receiver.unfinished_bytes <= 2 * MAX_RECORD
    assert stored + len(records(receiver.end())) == 100


def test_the_parts_of_one_chunk_are_joined_and_others_are_stored_with_it() -> None:
    """An ack says that all records are on disk, so a chunk leaves nothing for later."""
    whole, torn = parts_of(b"a" * 150, line="whole"), parts_of(b"b" * 150, line="torn")
    entries = [[TIME, fields] for fields in (torn[0], *whole)]
    receiver = ForwardReceiver(MAX_RECORD)
    (chunk,) = receiver.receive(pack(["t", entries, {"chunk": "one"}]))
    assert isinstance(chunk, Chunk)
    assert [record["log"] for record in records([chunk])] == ["a" * 150, "b" * PART_BYTES]
    assert not receiver.has_parts
    (chunk,) = receiver.receive(pack(["t", [[TIME, torn[1]]], {"chunk": "two"}]))
    assert [record["log"] for record in records([chunk])] == ["b" * 50]


def test_a_part_that_is_too_large_is_refused_and_its_line_stays_in_parts() -> None:
    fields = [part(b"1", 1), part(b"2" * MAX_RECORD, 2), part(b"3", 3, last=True)]
    receiver = ForwardReceiver(MAX_RECORD)
    events = receiver.receive(b"".join(map(message, fields)))
    assert TooLarge() in events
    assert [record["log"] for record in records(events)] == ["1", "3"]


def test_parts_before_broken_bytes_are_kept() -> None:
    receiver = ForwardReceiver(MAX_RECORD)
    *kept, broken = receiver.receive(message(part(b"1", 1)) + b"\xc1")
    assert isinstance(broken, Malformed)
    assert [record["log"] for record in records(kept)] == ["1"]
    assert receiver.end() == []


@pytest.mark.parametrize(
    "changed",
    [
        {"partial_message": "false"},
        {"partial_message": []},
        {"partial_id": None},
        {"partial_id": 1},
        {"partial_ordinal": "x"},
        {"partial_ordinal": "²"},
        {"partial_ordinal": "9" * 5000},
        {"partial_ordinal": {}},
        {"container_id": ["x"]},
    ],
)
def test_a_record_without_what_a_part_has_is_no_part(changed: dict[str, Any]) -> None:
    receiver = ForwardReceiver(8 * MAX_RECORD)
    (record,) = records(receiver.receive(message(part(b"1", 1) | changed)))
    assert record["log"] == "1"
    assert not receiver.has_parts


def test_parts_whose_log_is_no_text_stay_in_parts() -> None:
    halves = part(b"1", 1) | {"log": 5}, part(b"2", 2, last=True)
    assert [record["log"] for record in received(b"".join(map(message, halves)))] == [5, "2"]


def test_a_relay_may_write_numbers_and_booleans() -> None:
    one = part(b"1", 1) | {"partial_message": True, "partial_ordinal": 1, "partial_last": False}
    two = part(b"2", 2) | {"partial_message": True, "partial_ordinal": 2, "partial_last": True}
    (record,) = received(message(one) + message(two))
    assert record["log"] == "12"


_LINES = st.lists(
    st.one_of(st.binary(max_size=450), st.text(max_size=200).map(str.encode)),
    min_size=1,
    max_size=6,
)
_CUTS = st.lists(st.integers(min_value=0), max_size=12)


def _shuffled(choices: st.DataObject, contents: list[bytes]) -> list[dict[str, Any]]:
    """All parts of all lines, those of each line in order."""
    queues = [parts_of(content, line=str(number)) for number, content in enumerate(contents)]
    mixed: list[dict[str, Any]] = []
    while left := [queue for queue in queues if queue]:
        mixed.append(left[choices.draw(st.integers(0, len(left) - 1))].pop(0))
    return mixed


@given(contents=_LINES, cuts=_CUTS, choices=st.data())
def test_interleaved_lines_are_joined_wherever_the_bytes_are_cut(
    contents: list[bytes], cuts: list[int], choices: st.DataObject
) -> None:
    data = b"".join(map(message, _shuffled(choices, contents)))
    assert sorted(map(log_of, received(data, cuts, 64 * 1024))) == sorted(contents)


@given(contents=_LINES, cuts=_CUTS, choices=st.data(), limit=st.integers(400, 2000))
def test_no_byte_is_lost_doubled_or_moved_within_its_line_whatever_is_missing(
    contents: list[bytes], cuts: list[int], choices: st.DataObject, limit: int
) -> None:
    """A record that was joined is marked by nothing: each line has letters of its own."""
    contents = [bytes([ord("a") + n]) * len(each) for n, each in enumerate(contents)]
    mixed = [each for each in _shuffled(choices, contents) if choices.draw(st.integers(0, 4))]
    sent = b"".join(bytes(each["log"])[5:] for each in mixed)
    found = received(b"".join(map(message, mixed)), cuts, limit)
    for line in range(len(contents)):
        letter = bytes([ord("a") + line])
        assert b"".join(map(log_of, found)).count(letter) == sent.count(letter)
        ordinals = [
            int(each["partial_ordinal"]) for each in found if each.get("partial_id") == str(line)
        ]
        assert ordinals == sorted(ordinals)


def test_lines_are_joined_in_little_more_memory_than_their_parts_take() -> None:
    limit = 64 * 1024
    split_lines = SplitLines(limit)
    record = b'{"log":"x",%s}\n' % b",".join(b'"%d":1' % number for number in range(1000))
    *ordinals, last = range(1, 2 * limit // len(record))
    for ordinal in ordinals:
        assert split_lines.take(Part(("line",), ordinal, False), record) == []
    held_bytes = split_lines.held_bytes
    tracemalloc.start()
    try:
        joined = split_lines.take(Part(("line",), last, True), record)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [json.loads(each)["log"] for each in joined] == ["x" * last]
    assert peak_bytes < 3 * held_bytes
