"""The fast path is held to the exact path, and both to what a stored line must be."""

import json
import os
import random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from logengine.format.record import (
    ENVELOPE_NAMES,
    _stamp_fast,
    _stamp_messages,
    _stamp_one,
    count_lines,
    envelope,
    readable_text,
    stamp,
    stamp_exactly,
)

OPENING = envelope("2026-11-23T20:00:00.000123Z", b',"_pid":7')
MUTATED_CHUNKS = int(os.environ.get("MUTATED_CHUNKS", "60000"))

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
    max_leaves=6,
)
keys = st.text(max_size=4) | st.sampled_from([*ENVELOPE_NAMES, "__ts", "__pid", "_x", "message"])
objects = st.dictionaries(keys, json_values, max_size=4)
odd_lines = st.sampled_from(
    [
        b"{}",
        b"{ }",
        b"",
        b" ",
        b"\r",
        b"[1]",
        b"{",
        b"}",
        b'{"a":1}{"b":2}',
        b'{"a":1}\r',
        b'{"a":"\x00"}',
        b'{"a":"\xff"}',
        b'{"\\u005fseq":null}',
        b'{"a":1,"a":2}',
        b'{"a":"}\\n{"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b"{\x0b}",
    ]
)
lines = (
    objects.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    | objects.map(lambda value: json.dumps(value, separators=(",", ":")).encode())
    | odd_lines
    | st.binary(max_size=12).map(lambda line: line.replace(b"\n", b""))
)
chunks = st.lists(lines, max_size=6).map(lambda parts: b"".join(part + b"\n" for part in parts))


def strictly(line: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(line.decode(), parse_constant=refuse)


@given(chunks)
def test_fast_path_equals_exact_path(chunk: bytes) -> None:
    fast = _stamp_fast(chunk, OPENING)
    assert fast is None or fast == stamp_exactly(chunk, OPENING)


@given(lines)
def test_the_fast_path_of_one_line_equals_the_exact_path(line: bytes) -> None:
    fast = _stamp_one(line + b"\n", OPENING)
    assert fast is None or fast == stamp_exactly(line + b"\n", OPENING)


@given(chunks)
def test_every_line_becomes_one_valid_record_that_begins_with_the_envelope(chunk: bytes) -> None:
    body, count = stamp(chunk, OPENING)
    stored = body.split(b"\n")
    assert stored.pop() == b""
    assert len(stored) == count == count_lines(chunk)
    for line in stored:
        record = strictly(line)
        assert list(record)[:2] == ["_ts", "_pid"]
        assert record["_pid"] == 7


@given(st.lists(objects, min_size=1, max_size=4))
def test_what_the_sender_wrote_comes_back(sent: list[dict[str, Any]]) -> None:
    chunk = b"".join(json.dumps(value).encode() + b"\n" for value in sent)
    for line, value in zip(stamp(chunk, OPENING).body.splitlines(), sent, strict=True):
        stored = strictly(line)
        if not any(name in ENVELOPE_NAMES for name in value) and not _has_surrogates(value):
            assert {name: stored[name] for name in stored if name not in ("_ts", "_pid")} == value
        elif not _has_surrogates(value):
            kept = [stored[name] for name in stored if name not in ("_ts", "_pid")]
            assert sorted(map(repr, kept)) == sorted(map(repr, value.values()))


def _has_surrogates(value: object) -> bool:
    return any(0xD800 <= ord(char) < 0xE000 for char in str(value)) or "\\ud" in json.dumps(value)


reserved_objects = st.dictionaries(
    st.sampled_from(["_pid", "__pid", "___pid", "_ts", "__ts", "_seq", "_x", "a"]),
    json_values.filter(lambda value: not _has_surrogates(value)),
    min_size=1,
)


@given(value=reserved_objects, escaped=st.booleans())
def test_a_reserved_key_gets_underscores_until_its_name_is_free(
    *, value: dict[str, Any], escaped: bool
) -> None:
    line = json.dumps(value, ensure_ascii=escaped)
    if escaped:
        line = line.replace('"_', '"\\u005f')
        assume(json.loads(line) == value)
    record = strictly(stamp(line.encode() + b"\n", OPENING).body)
    assert (record.pop("_ts"), record.pop("_pid")) == ("2026-11-23T20:00:00.000123Z", 7)
    assert len(record) == len(value)
    for name, said in value.items():
        if name not in ENVELOPE_NAMES:
            assert record.pop(name) == said
    for name in record:
        # As few underscores as it takes: each name between is one the sender used.
        own = "_" + name.lstrip("_")
        assert own in ENVELOPE_NAMES
        assert record[name] == value[own]
        taken = ["_" * more + own for more in range(1, len(name) - len(own))]
        assert all(other in value for other in taken)


@given(st.lists(lines, max_size=5), st.lists(lines, max_size=5))
def test_chunks_may_be_cut_at_any_line(first: list[bytes], second: list[bytes]) -> None:
    one, two = (b"".join(part + b"\n" for part in parts) for parts in (first, second))
    whole, head, tail = (stamp(chunk, OPENING) for chunk in (one + two, one, two))
    assert whole.body == head.body + tail.body
    assert whole.records == head.records + tail.records


def test_mutated_chunks_never_pass_the_fast_path_wrongly() -> None:
    seed = int(os.environ.get("SEED", "20261123"))
    source = random.Random(seed)
    pieces = [b"{", b"}", b"\n", b'"', b",", b":", b"}\n{", b" ", b"\\", b"\xff", b"\x00", b"\r"]
    base = b'{"a":1,"b":"x"}\n{"c":{"d":[1,2]}}\n{"_x":null,"e":"}{"}\n'
    accepted = 0
    for _ in range(MUTATED_CHUNKS):
        chunk = bytearray(base)
        for _ in range(source.randint(1, 3)):
            place = source.randrange(len(chunk))
            piece = source.choice(pieces)
            if source.random() < 0.5:
                chunk[place:place] = piece
            else:
                chunk[place : place + len(piece)] = source.choice([b"", piece])
        if not chunk.endswith(b"\n"):
            chunk += b"\n"
        fast = _stamp_fast(bytes(chunk), OPENING)
        if fast is not None:
            accepted += 1
            assert fast == stamp_exactly(bytes(chunk), OPENING), (seed, bytes(chunk))
    assert accepted > MUTATED_CHUNKS // 100


not_quite_utf8 = st.lists(
    st.sampled_from(
        [
            *(rb"\udc", rb"\udcff", rb"\udcZ", rb"\x", rb"\n", rb"\\", b"Z", b"8", b'"'),
            *(b"\xff", b"\xc3", b"\xed\xb2\x80", b"\xf0\x9f", "é".encode(), "\U0001f600".encode()),
            *(b" ", b"\t", b"\r", b"\x00", b"\x7f", b"}", b"n"),
        ]
    )
).map(b"".join)


@given(st.binary() | not_quite_utf8)
def test_bytes_that_are_not_utf8_are_kept_readable(text: bytes) -> None:
    assert readable_text(text) == text.decode("utf-8", "backslashreplace")


@given(st.lists(not_quite_utf8 | st.binary().map(lambda line: line.replace(b"\n", b""))))
def test_text_is_stamped_at_once_as_it_is_line_by_line(lines: list[bytes]) -> None:
    chunk = b"".join(line + b"\n" for line in lines) + b"\n" * 1000
    stamped = _stamp_messages(chunk, OPENING)
    has_object = any(line.lstrip(b" \t\r").startswith(b"{") for line in lines)
    assert stamped == (None if has_object else stamp_exactly(chunk, OPENING))
