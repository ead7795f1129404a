"""What Fluentd's Forward protocol makes of bytes, among them those that real clients wrote."""

import gzip
import json
import struct
import tracemalloc
from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logengine.format.record import stamp
from logengine.protocols.forward import (
    CHUNK_ID_BYTES_MAX,
    ENTRIES_MAX,
    MESSAGE_BYTES_MAX,
    OPTIONS_BYTES_MAX,
    RECORDS_BYTES_MAX,
    VALUES_MAX,
    ForwardReceiver,
)
from logengine.protocols.wire import Chunk, Event, Lines, Malformed, TooLarge

MAX_RECORD = 4096
CHUNK = "cGxlYXNlIGFja25vd2xlZGdl"
TIME = 1795466382
WRITTEN = "2026-11-23T20:39:42.000000Z"

pack = msgspec.msgpack.encode


def received(data: bytes, cuts: list[int] | None = None, limit: int = MAX_RECORD) -> list[Event]:
    """The events of `data`, received in pieces that end at `cuts`; `Lines` next to each other."""
    receiver = ForwardReceiver(limit)
    places = sorted({cut % (len(data) + 1) for cut in cuts or []} | {0, len(data)})
    events: list[Event] = []
    for start, stop in pairwise(places):
        for event in receiver.receive(data[start:stop]):
            if isinstance(event, Lines) and events and isinstance(events[-1], Lines):
                events[-1] = Lines(events[-1].chunk + event.chunk)
            else:
                events.append(event)
    return events + receiver.end()


def records_of(event: Event) -> list[dict[str, Any]]:
    lines = event.lines if isinstance(event, Chunk) else event.chunk  # type: ignore[union-attr]
    assert not lines or lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


def records(data: bytes) -> list[dict[str, Any]]:
    """The records of `data`, in which nothing else is."""
    (event,) = received(data)
    return records_of(event)


def chunk_of(data: bytes) -> Chunk:
    (event,) = received(data)
    assert isinstance(event, Chunk)
    return event


def event_time(seconds: int, nanoseconds: int) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(0, struct.pack(">II", seconds, nanoseconds))


# From fluent-logger of PyPI, with whole seconds and with nanoseconds.
PYPI = bytes.fromhex("93aa6170702e666f6c6c6f77ce6b04a45382a16101a162a178")
PYPI_NS = bytes.fromhex("93a3617070d7006b04a45337d380c981a16101")
# From @fluent-org/logger and fluent-logger of npm, in all four modes.
NODE_MESSAGE = pack(["app", TIME, {"a": 1}, {"chunk": CHUNK}])
NODE_FORWARD = pack(["app", [[TIME, {"a": 1}]], {"size": 1, "chunk": CHUNK}])
PACKED = pack([TIME, {"a": 1}])
NODE_PACKED = pack(["app", PACKED, {"size": 1, "chunk": CHUNK}])
NODE_GZIP = pack(
    ["app", gzip.compress(PACKED, mtime=0), {"size": 1, "chunk": CHUNK, "compressed": "gzip"}]
)
NODE_BYTES_AS_SIZE = pack(
    [
        "app",
        PACKED,
        {"size": len(PACKED), "chunk": CHUNK, "compressed": "text", "eventEntryDataSize": 1},
    ]
)
# From Fluent Bit: entries with metadata, EventTime, and options in a map with a length of 32 bits.
FLUENT_BIT = (
    bytes.fromhex("93a664756d2e6d7991929 2d7006b04a5541663350180".replace(" ", ""))
    + pack({"log": "x"})
    + bytes.fromhex("df00000003")
    + pack("chunk")
    + pack(CHUNK)
    + pack("size")
    + pack(1)
    + pack("fluent_signal")
    + pack(0)
)
# From Go's fluent-logger, and so from Docker: always four parts.
GO = bytes.fromhex("94a3617070d26b04a453") + pack({"log": "x"}) + b"\x80"
GO_JSON = b'["go.tag",1795466382,{"m":"hi"},{"chunk":"%s"}]' % CHUNK.encode()


def test_a_message_of_pypis_fluent_logger_is_a_record_with_its_time_and_tag() -> None:
    assert records(PYPI) == [
        {"time": "2026-11-23T20:38:43.000000Z", "tag": "app.follow", "a": 1, "b": "x"}
    ]
    assert records(PYPI_NS) == [{"time": "2026-11-23T20:38:43.936607Z", "tag": "app", "a": 1}]


@pytest.mark.parametrize(
    "message", [NODE_MESSAGE, NODE_FORWARD, NODE_PACKED, NODE_GZIP, NODE_BYTES_AS_SIZE]
)
def test_each_mode_is_a_chunk_that_is_acknowledged_by_its_id(message: bytes) -> None:
    chunk = chunk_of(message)
    assert records_of(chunk) == [{"time": WRITTEN, "tag": "app", "a": 1}]
    assert chunk.answer == b"\x81\xa3ack\xb8" + CHUNK.encode()
    assert chunk.too_large == 0


def test_an_entry_of_fluent_bit_has_its_time_beside_metadata() -> None:
    chunk = chunk_of(FLUENT_BIT)
    assert records_of(chunk) == [
        {"time": "2026-11-23T20:43:00.375600Z", "tag": "dum.my", "log": "x"}
    ]
    with_metadata = pack(["t", [[[TIME, {"k": 1}], {"log": "x"}]]])
    assert records(with_metadata) == [
        {"time": WRITTEN, "tag": "t", "metadata": {"k": 1}, "log": "x"}
    ]


def test_a_message_of_go_without_options_is_not_answered() -> None:
    assert records(GO) == [{"time": "2026-11-23T20:38:43.000000Z", "tag": "app", "log": "x"}]


def test_a_message_of_json_is_answered_in_json() -> None:
    chunk = chunk_of(GO_JSON)
    assert records_of(chunk) == [{"time": WRITTEN, "tag": "go.tag", "m": "hi"}]
    assert chunk.answer == b'{"ack":"%s"}' % CHUNK.encode()
    assert records(b' ["t",[[1,{"a":"]"}],[2,{"b":"\\"["}]]]\n') == [
        {"time": "1970-01-01T00:00:01.000000Z", "tag": "t", "a": "]"},
        {"time": "1970-01-01T00:00:02.000000Z", "tag": "t", "b": '"['},
    ]


def test_a_chunk_compressed_with_zstd_is_decompressed() -> None:
    packed = zstandard.compress(PACKED * 3)
    chunk = chunk_of(pack(["app", packed, {"chunk": CHUNK, "compressed": "zstd"}]))
    assert len(records_of(chunk)) == 3


def test_several_members_of_gzip_are_one_chunk() -> None:
    packed = gzip.compress(PACKED, mtime=0) + gzip.compress(PACKED, mtime=0)
    assert len(records(pack(["app", packed, {"compressed": "gzip"}]))) == 2


@pytest.mark.parametrize("size", [-1, 0, 1, 3, 2**40, "2", None])
def test_the_option_size_changes_nothing(size: object) -> None:
    entries = pack([TIME, {"a": "0123456789abcdef"}]) + pack([TIME, {"b": "0123456789abcdef"}])
    assert [set(record) for record in records(pack(["t", entries, {"size": size}]))] == [
        {"time", "tag", "a"},
        {"time", "tag", "b"},
    ]


def test_the_same_bytes_are_the_same_chunk_and_others_are_not() -> None:
    digests = [
        chunk_of(pack(message)).digest
        for message in (
            ["t", TIME, {"a": 1}, {"chunk": "x"}],
            ["t", TIME, {"a": 2}, {"chunk": "x"}],
            ["u", TIME, {"a": 1}, {"chunk": "x"}],
            ["t", TIME, {"a": 1}, {"chunk": "y"}],
        )
    ]
    assert len(set(digests)) == len(digests)
    assert chunk_of(NODE_GZIP).digest == chunk_of(NODE_GZIP).digest


def test_a_heartbeat_is_nothing() -> None:
    assert received(b"\xc0\xc0") == []
    assert records(b"\xc0" + PYPI)[0]["tag"] == "app.follow"


@pytest.mark.parametrize("signal", [1, 2])
def test_metrics_and_traces_are_acknowledged_and_not_stored(signal: int) -> None:
    chunk = chunk_of(pack(["t", pack({"cmt": 1}), {"chunk": "x", "fluent_signal": signal}]))
    assert chunk.lines == b""
    assert chunk.answer == pack({"ack": "x"})


def test_a_chunk_without_entries_is_acknowledged() -> None:
    assert chunk_of(pack(["t", [], {"chunk": "x"}])).lines == b""
    assert chunk_of(pack(["t", b"", {"chunk": "x"}])).lines == b""


def test_text_and_binary_that_are_utf8_are_text_and_others_are_marked_base64() -> None:
    record = {
        "text": b"gr\xc3\xbcn",
        "log": b"\xff\x00",
        "log_base64": "taken",
        "inner": {"raw": b"\xfe", "list": [b"\xfd", b"ok"]},
    }
    encoded = pack(["t", TIME, record]).replace(b"\xc4\x02\xff\x00", b"\xd9\x02\xff\x00")
    assert records(encoded) == [
        {
            "time": WRITTEN,
            "tag": "t",
            "text": "grün",
            "log_base64": "taken",
            "_log_base64": "/wA=",
            "inner": {"raw_base64": "/g==", "list": [{"base64": "/Q=="}, "ok"]},
        }
    ]


def test_values_that_json_does_not_have_become_some_that_it_has() -> None:
    record = {
        "ext": msgspec.msgpack.Ext(7, b"\x01"),
        "when": event_time(TIME, 5000),
        "nan": float("nan"),
        1: "number",
        "in": {2: True},
    }
    assert records(pack(["t", TIME, record])) == [
        {
            "time": WRITTEN,
            "tag": "t",
            "ext": {"ext": 7, "base64": "AQ=="},
            "when": "2026-11-23T20:39:42.000005Z",
            "nan": None,
            "1": "number",
            "in": {"2": True},
        }
    ]


def test_fields_with_a_taken_name_get_an_underscore() -> None:
    record = {"time": 1, "tag": 2, "_tag": 3, "metadata": 4}
    assert records(pack(["t", TIME, record])) == [
        {"time": WRITTEN, "tag": "t", "_time": 1, "__tag": 2, "_tag": 3, "metadata": 4}
    ]


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1.5, "1970-01-01T00:00:01.500000Z"),
        (event_time(2**32 - 1, 999_999_999), "2106-02-07T06:28:15.999999Z"),
        (2**63, 2**63),
        ("yesterday", "yesterday"),
        (True, True),
    ],
)
def test_a_time_is_written_as_elsewhere_and_what_is_none_stays(
    time: object, written: object
) -> None:
    assert records(pack(["t", [[time, {"a": 1}]]])) == [{"time": written, "tag": "t", "a": 1}]


def test_an_entry_without_a_time_has_none() -> None:
    assert records(pack(["t", [[None, {"a": 1}]]])) == [{"tag": "t", "a": 1}]


@pytest.mark.parametrize("entry", [1, [TIME], [TIME, "text"], {"a": 1}, [TIME, [1]], []])
def test_an_entry_that_is_none_is_kept_as_its_bytes(entry: object) -> None:
    (record,) = records(pack(["t", [entry]]))
    assert record["tag"] == "t"
    assert b64decode(record["entry_base64"]) == pack(entry)


def test_bytes_after_the_entries_of_a_chunk_are_kept() -> None:
    for rest in (b"\x92\xce\x00", b"\xc1\xc1"):
        found = records(pack(["t", PACKED + rest]))
        assert [set(record) for record in found] == [{"time", "tag", "a"}, {"tag", "entry_base64"}]
        assert b64decode(found[1]["entry_base64"]) == rest


@pytest.mark.parametrize("levels", [256, 1500])
def test_an_entry_nested_too_deep_is_kept_as_its_bytes(levels: int) -> None:
    entry = b"\x92\x01\x81\xa1a" + b"\x91" * levels + b"\xc0"
    for message in (b"\x92\xa1t\x91" + entry, pack(["t", entry, {"size": 1}])):
        (record,) = records(message)
        assert b64decode(record["entry_base64"]) == entry
    near = b"\x92\x01\x81\xa1a" + b"\x91" * 254 + b"\xc0"
    assert "a" in records(b"\x92\xa1t\x91" + near)[0]


def test_a_record_that_is_too_large_is_refused_and_the_others_of_its_chunk_are_not() -> None:
    entries = [[TIME, {"a": 1}], [TIME, {"a": "x" * MAX_RECORD}], [TIME, {"a": "\0" * 1000}]]
    chunk = chunk_of(pack(["t", entries, {"chunk": "x"}]))
    assert len(records_of(chunk)) == 1
    assert chunk.too_large == 2
    lines, *refused = received(pack(["t", entries]))
    assert len(records_of(lines)) == 1
    assert refused == [TooLarge(), TooLarge()]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b'{"_hello":1}\n',
        b"\xc1",
        b"\x93\xa1t\xc1",
        pack(1),
        pack({"a": 1}),
        pack([]),
        pack(["t"]),
        pack(["t", TIME]),
        pack([1, TIME, {}]),
        pack(["t", TIME, {}, {"chunk": 1}]),
        pack(["t", TIME, {}, {"chunk": b"\xff"}]),
        pack(["t", TIME, {}, {"chunk": "x" * (CHUNK_ID_BYTES_MAX + 1)}]),
        pack(["t", TIME, {}, {"x": "x" * OPTIONS_BYTES_MAX}]),
        b'["t", 1, {"a": %s}]' % (b"1" * 5000),
        b'["\\ud800", 1, {}]',
        b'["t", 1, {}, {"chunk":"\\udc00"}]',
        pack(["t", b"no gzip", {"compressed": "gzip"}]),
        pack(["t", gzip.compress(PACKED, mtime=0)[:-4], {"compressed": "gzip"}]),
        b"\x92\xa1t\xc6" + struct.pack(">I", MESSAGE_BYTES_MAX),
        b"\x92\xa1t\xdd" + struct.pack(">I", MESSAGE_BYTES_MAX),
        b'["t", 1, tru]',
        b'["t", 1, {"a":"\xff"}]',
        b'["t", "' + b"x" * (MAX_RECORD + 65536),
    ],
)
def test_what_is_no_message_ends_the_connection_after_what_came_before(data: bytes) -> None:
    lines, end = received(PYPI + data + PYPI)
    assert len(records_of(lines)) == 1
    assert isinstance(end, Malformed)
    receiver = ForwardReceiver(MAX_RECORD)
    receiver.receive(data)
    assert receiver.receive(PYPI) == []
    assert receiver.unfinished_bytes == 0


def test_a_message_that_is_cut_off_by_the_end_is_dropped() -> None:
    assert received(PYPI[:-1]) == []
    receiver = ForwardReceiver(MAX_RECORD)
    receiver.receive(PYPI[:-1])
    assert receiver.drop_unfinished() == len(PYPI) - 1


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_ends_the_connection_before_it_takes_memory(compression: str) -> None:
    compress = gzip.compress if compression == "gzip" else zstandard.compress
    bomb = compress(bytes(64 * MESSAGE_BYTES_MAX))
    tracemalloc.start()
    (event,) = received(pack(["t", bomb, {"compressed": compression}]))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(event, Malformed)
    assert "larger than" in event.reason
    assert peak_bytes < 4 * MESSAGE_BYTES_MAX


def test_small_entries_under_a_long_tag_do_not_fill_the_memory() -> None:
    tag = "t" * (MAX_RECORD // 2)
    entries = b"\x92\x00\x80" * (2 * RECORDS_BYTES_MAX // len(tag))
    tracemalloc.start()
    (event,) = received(pack([tag, entries]))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(event, Malformed)
    assert peak_bytes < 2 * RECORDS_BYTES_MAX


def test_a_message_that_would_take_long_to_decode_ends_the_connection() -> None:
    small = b"\x80" * (VALUES_MAX + 1)
    array = b"\xdd" + struct.pack(">I", len(small)) + small
    entry = b"\x92\x01\x81\xa1a" + array
    for message in (
        pack(["t", pack([1, {}]) * (ENTRIES_MAX + 1)]),
        pack(["t", [[1, {}]] * (ENTRIES_MAX + 1), {"chunk": "x"}]),
        pack(["t", entry]),
        b"\x92\xa1t\x91" + entry,
        b"\x92\xa1t" + array,
        b"\x92" + array + b"\x90",
        b"\x94\xa1t\x01\x80" + array,
        array,
    ):
        (event,) = received(message)
        assert isinstance(event, Malformed)
        assert len(event.reason) < 100
    assert len(records(pack(["t", [[1, {}]] * ENTRIES_MAX]))) == ENTRIES_MAX


def test_complete_messages_are_found_before_they_are_received() -> None:
    receiver = ForwardReceiver(MAX_RECORD)
    receiver.receive(PYPI[:5])
    waiting = PYPI[5:] + GO_JSON + b"\xc0" + PYPI[:7]
    whole = len(PYPI) - 5 + len(GO_JSON) + 1
    assert receiver.whole_bytes(waiting) == whole
    assert receiver.bytes_of(waiting, 1) == len(PYPI) - 5
    assert receiver.bytes_of(waiting, 2) == len(PYPI) - 5 + len(GO_JSON)
    assert receiver.bytes_of(waiting, 99) == len(waiting)
    assert receiver.whole_bytes(PYPI[5:-1]) == 0
    assert len(receiver.receive(PYPI[5:])) == 1


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 9), st.binary(max_size=9)),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inside, max_size=3)
    ),
    max_leaves=8,
)
times = (
    st.integers(-1, 2**40) | st.floats() | st.builds(event_time, *[st.integers(0, 2**32 - 1)] * 2)
)
entries = st.tuples(times | st.tuples(times, values), values) | values
options = st.dictionaries(
    st.sampled_from(["chunk", "size", "compressed", "x"]), values | st.text(max_size=4), max_size=3
)
messages = st.one_of(
    st.tuples(st.text(max_size=4), times, values, options).map(pack),
    st.tuples(st.text(max_size=4), st.lists(entries, max_size=4), options).map(pack),
    st.tuples(
        st.text(max_size=4), st.lists(entries, max_size=4).map(lambda a: b"".join(map(pack, a)))
    ).map(pack),
    st.sampled_from([b"\xc0", b"\n", GO_JSON]),
    values.map(pack),
)


@pytest.mark.parametrize("before", [b"\n", b" \r\n", b"\xc0\t"])
@pytest.mark.parametrize("message", [PYPI, b'["t",1,{"a":1}]'])
def test_white_space_before_a_message_is_no_part_of_it_wherever_it_is_cut(
    before: bytes, message: bytes
) -> None:
    data = message + before + message
    for cut in range(len(data)):
        assert received(data, [cut]) == received(message * 2)


@given(st.lists(messages, max_size=4), st.lists(st.integers(0, 2**20), max_size=12))
def test_the_events_do_not_depend_on_how_the_bytes_were_cut(
    sent: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(sent)
    assert received(data, cuts) == received(data)
    assert received(data, list(range(len(data)))) == received(data)


@given(st.binary(max_size=64), st.lists(st.integers(0, 2**20), max_size=4))
def test_any_bytes_become_records_or_end_the_connection(noise: bytes, cuts: list[int]) -> None:
    for data in (noise, b"\x92\xa1t" + noise, pack(["t", noise]), b"[" + noise, PYPI + noise):
        assert received(data, cuts) == received(data)


@given(messages)
def test_every_record_is_one_stored_line(message: bytes) -> None:
    for event in received(message):
        if isinstance(event, (Lines, Chunk)):
            lines = event.lines if isinstance(event, Chunk) else event.chunk
            stored = stamp(lines, b'{"_ts":"2026-11-23T20:39:42.000000Z"')
            assert stored.records == lines.count(b"\n")
            assert all("tag" in json.loads(line) for line in stored.body.splitlines())


def test_a_chunks_id_is_answered_as_it_came() -> None:
    for name in ("", "grün", b64encode(bytes(16)).decode()):
        assert msgspec.msgpack.decode(chunk_of(pack(["t", [], {"chunk": name}])).answer) == {
            "ack": name
        }
