"""One definition of a record: what is admitted is read by everybody, and by all to the same value.

`admitted` lines are stamped as the daemon does it. Then `verify`, salvage, the reading API, the
filters, the pretty output, export, import, Python's json, jq and DuckDB read the stored line.
"""

import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from logengine.cli.output import Output
from logengine.client.encoding import encode_line, encode_record
from logengine.exchange.importing import converter
from logengine.format.block import Block, Record
from logengine.format.json_object import (
    INTEGER_DIGITS_MAX,
    NESTING_MAX,
    _scan,
    exceeds_limits,
    fault_of_line,
    object_fields,
    stored_fields,
    without_controls,
)
from logengine.format.record import Peer, _stamp_fast, envelope, peer_fields, stamp, stamp_exactly
from logengine.format.segment import decode_header
from logengine.reading.batch import PendingGaps
from logengine.reading.filter import Where
from logengine.rendering.clock import WallClock
from logengine.rendering.pretty import Look, Pretty
from logengine.store.plan import Addition, StreamState, append
from logengine.upkeep.erase_plan import Mark, tombstone
from logengine.upkeep.salvage import salvage
from logengine.upkeep.verify import check_segment

TIME = "2026-11-28T08:00:00.000001Z"
OPENING = envelope(TIME, b',"_pid":7')
NOW = datetime(2026, 11, 28, tzinfo=UTC)
PRETTY = Pretty(Look(clock=WallClock(UTC)))
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
JQ = shutil.which("jq")


def stored(*lines: bytes) -> list[bytes]:
    body, count = stamp(b"".join(line + b"\n" for line in lines), OPENING)
    found = body.split(b"\n")
    assert found.pop() == b""
    assert len(found) == count
    return found


def is_text(line: bytes) -> bool:
    """Whether a stored line is that of a text, and not that of the object that was sent."""
    return list(json.loads(line, parse_int=str)) == ["_ts", "_pid", "message"]


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


# JSON in all its ways of writing: white space, escapes, numbers, characters.

spaces = st.sampled_from([b"", b"", b"", b" ", b"\t", b"\r", b" \r\t"])
characters = (
    st.characters(exclude_categories=["Cs"])
    | st.characters(min_codepoint=0, max_codepoint=0xA1)
    | st.sampled_from("\u2028\u2029\u202e\u2066\ufeff\uffff\x7f\x80\x9b\x9f\xa0😀")
)


def escaped(character: str) -> list[bytes]:
    units = character.encode("utf-16-be").hex()
    forms = [b"".join(b"\\u%s" % units[i : i + 4].encode() for i in range(0, len(units), 4))]
    if character >= " " and character not in '"\\':
        forms.append(character.encode())
    return forms


def one_of(*each: bytes) -> st.SearchStrategy[bytes]:
    """One of some long values; hypothesis prints a strategy, but not these."""
    return st.integers(0, len(each) - 1).map(lambda index: each[index])


strings = st.lists(characters.flatmap(lambda c: st.sampled_from(escaped(c))), max_size=5).map(
    lambda pieces: b'"%s"' % b"".join(pieces)
)
numbers = (
    st.integers().map(lambda number: b"%d" % number)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: repr(number).encode())
    | st.from_regex(
        rb"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
    )
    | one_of(
        b"-0",
        b"-0.0",
        b"1e999",
        b"-1e-999",
        b"1E400",
        b"9" * 309,
        b"9" * INTEGER_DIGITS_MAX,
        b"0." + b"3" * 5000,
        b"9" * 5000 + b".5",
        b"9" * 5000 + b"e-4000",
    )
)


def arrays(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(spaces, st.lists(st.tuples(spaces, values, spaces), max_size=3)).map(
        lambda drawn: b"[%s]" % (b",".join(map(b"".join, drawn[1])) or drawn[0])
    )


def objects(values: st.SearchStrategy[bytes], least: int = 0) -> st.SearchStrategy[bytes]:
    fields = st.lists(
        st.tuples(spaces, strings, spaces, st.just(b":"), spaces, values, spaces),
        # Readers differ about duplicate keys; documented, and tested below.
        unique_by=lambda field: json.loads(field[1]),
        min_size=least,
        max_size=4,
    )
    return st.tuples(spaces, fields).map(
        lambda drawn: b"{%s}" % (b",".join(map(b"".join, drawn[1])) or drawn[0])
    )


values = st.recursive(
    numbers | strings | st.sampled_from([b"true", b"false", b"null"]),
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=6,
)
admitted = objects(values).filter(
    lambda text: not any(name.startswith("_") for name in json.loads(text, parse_int=str))
)


def nested(
    levels: int, inside: bytes = b"1", opening: bytes = b"[", closing: bytes = b"]"
) -> bytes:
    """An object of that many levels, itself included."""
    return b'{"a":%s%s%s}' % (opening * (levels - 1), inside, closing * (levels - 1))


odd = one_of(
    nested(NESTING_MAX),
    nested(NESTING_MAX + 1),
    nested(NESTING_MAX + 1, opening=b'{"k": ', closing=b" }"),
    nested(700),
    nested(5000),
    b'{"a":' + b"[],{}" * 300 + b"}",
    b'{"a":[' + b"[],{}," * 300 + b"0]}",
    b'{"a":"' + b"[" * 600 + b'"}',
    b'{"a":"\\\\\\"' + b"[" * 600 + b'"}',
    b'{"n":' + b"9" * (INTEGER_DIGITS_MAX + 1) + b"}",
    b'{"n":[-' + b"9" * (INTEGER_DIGITS_MAX + 1) + b"]}",
    b'{"n":"' + b"9" * (INTEGER_DIGITS_MAX + 1) + b'"}',
    b'{"n":[0.' + b"9" * 5000 + b",1,-" + b"9" * (INTEGER_DIGITS_MAX + 1) + b"]}",
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b'{"a":1}{"b":2}',
    b'{"a":1,}',
    b'{"a":1}//',
    b'{"a":"\\ud800"}',
    b'{"\\udc00":1}',
    b'{"a":"\xc0\x80"}',
    b'{"a":"\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"a":1}',
    b'{"a":"\t"}',
    b'{"a":"\x1f"}',
    b'{"a":01}',
    b"[1]",
    b'"text"',
    b"17",
    b"{}",
    b"{\r}",
    b'\r{"a":1}\r',
    "text \x7f \x85 \x9b2K \u2028 \u202e".encode(),
    b"\x0c{}",
)
some_bytes = st.binary(max_size=12).map(lambda line: line.replace(b"\n", b""))
lines = admitted | odd | some_bytes


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    text = bytearray(draw(admitted | odd.filter(lambda line: len(line) < 100)))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text[place : place + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"e", b"-"]
            )
        )
    return bytes(text)


# The engine's own readers.


@given(st.lists(lines, max_size=5))
def test_whatever_is_sent_is_stored_as_a_record_without_control_characters(
    sent: list[bytes],
) -> None:
    found = stored(*sent)
    assert len(found) == sum(1 for line in sent if line.strip(b" \t\r"))
    for line in found:
        assert fault_of_line(line) is None
        assert not CONTROLS.search(line.decode())
        assert not exceeds_limits(line)
        assert list(strictly(line.decode()))[:2] == ["_ts", "_pid"]


@given(st.lists(lines, max_size=4))
def test_the_fast_path_admits_what_the_exact_one_does(sent: list[bytes]) -> None:
    chunk = b"".join(line + b"\n" for line in sent)
    fast = _stamp_fast(chunk, OPENING)
    assert fast is None or fast == stamp_exactly(chunk, OPENING)


@given(admitted)
def test_what_every_reader_reads_is_stored_as_the_object_that_was_sent(text: bytes) -> None:
    (line,) = stored(text)
    record = json.loads(line)
    assert (record.pop("_ts"), record.pop("_pid")) == (TIME, 7)
    assert record == json.loads(text)


@given(mutated() | lines)
def test_admitted_are_the_objects_that_python_reads_within_the_limits(line: bytes) -> None:
    text = line.strip(b" \t\r")
    try:
        value = strictly(text.decode())
        json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
    except (ValueError, RecursionError):
        value = None
    is_object = isinstance(value, dict) and depth(text) <= NESTING_MAX
    assert (object_fields(text) is not None) == is_object


def depth(text: bytes) -> int:
    deepest = level = 0
    for bracket in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", text):
        level += (bracket in b"[{") - (bracket in b"]}")
        deepest = max(deepest, level)
    return deepest


@pytest.mark.parametrize("kind", [(b"[", b"]"), (b'{"a":', b"}"), (b'[ {"":', b" } ]")])
@pytest.mark.parametrize("inside", [b"1", b'"]]}}\\"{{[["', b"[]", b"[[],[],{}]"])
def test_an_object_is_nested_as_deeply_as_common_readers_go(
    kind: tuple[bytes, bytes], inside: bytes
) -> None:
    (opening, closing), each = kind, kind[0].count(b"[") + kind[0].count(b"{")
    for levels in range(NESTING_MAX - 6, NESTING_MAX + 6):
        text = nested(1 + levels, inside, opening, closing)
        if each == 2:
            text = nested(1 + levels // 2, inside, opening, closing)
        for chunk in ([text], [b'{"b":1}', text], [text, *[b'{"b":[{}]}'] * 300]):
            found = stored(*chunk)
            assert [is_text(line) for line in found] == [
                depth(line) > NESTING_MAX for line in chunk
            ]


@pytest.mark.parametrize(
    ("number", "is_admitted"),
    [
        (b"9" * INTEGER_DIGITS_MAX, True),
        (b"-" + b"9" * INTEGER_DIGITS_MAX, True),
        (b"9" * (INTEGER_DIGITS_MAX + 1), False),
        (b"-" + b"9" * (INTEGER_DIGITS_MAX + 1), False),
        (b"9" * 100_000, False),
        (b"9" * 5000 + b".0", True),
        (b"9" * 5000 + b"e1", True),
        (b"0." + b"9" * 5000, True),
        (b'"' + b"9" * 5000 + b'"', True),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 63])
def test_an_integer_has_no_more_digits_than_python_converts(
    number: bytes, *, is_admitted: bool, before: int
) -> None:
    text = b'{"%s":[1,%s]}' % (b"k" * before, number)
    for chunk in ([text], [b'{"b":1}', text, b'{"c":1}']):
        assert [is_text(line) for line in stored(*chunk)].count(True) == (not is_admitted)


@given(lines.filter(lambda line: line.strip(b" \t\r") != b""))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_way_to_read_a_record_gives_the_same_fields(line: bytes) -> None:
    (found,) = stored(line)
    told = json.loads(found)
    assert same(Record("app", 1, found).fields, told)
    fields = stored_fields(found)
    assert fields is not None
    assert list(fields) == list(told)
    for name, raw in fields.items():
        assert same(json.loads(bytes(raw)), told[name])
        if isinstance(told[name], str):
            assert Where(f"{json.dumps(name)} = {json.dumps(told[name])}").holds(found)
    (placed,) = Block("app", 1, 1, found + b"\n").with_places()
    assert same(json.loads(placed), {"_stream": "app", "_seq": 1} | told)


@given(lines.filter(lambda line: line.strip(b" \t\r") != b""))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_person_reads_has_no_control_characters(
    capsysbinary: pytest.CaptureFixture[bytes], line: bytes
) -> None:
    output = Output("pretty", PRETTY)
    output.write(PendingGaps().batch(Block("app", 1, 1, stored(line)[0] + b"\n")))
    output.flush()
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]",
        capsysbinary.readouterr().out.decode(),
    )


@given(st.lists(lines, min_size=1, max_size=4))
def test_verify_finds_nothing_and_salvage_keeps_every_line(sent: list[bytes]) -> None:
    found = stored(*sent)
    content = segment(found)
    line, _, body = content.partition(b"\n")
    assert not list(check_segment(decode_header(line, "app"), body, "app/1"))
    for damaged, header in (
        (content, decode_header(line, "app")),
        (b"#" + content, None),
        (body, None),
    ):
        salvaged = salvage(damaged, 1, header, compressed=False)
        assert [each.line for each in salvaged.lines] == found
        assert not salvaged.broken


def segment(stored: Sequence[bytes]) -> bytes:
    body = b"".join(line + b"\n" for line in stored)
    addition = Addition([body], len(stored), TIME, TIME, {})
    plan, _ = append(StreamState("app"), addition, rewrite_limit=0, max_producers=4)
    return b"".join(plan.render())


@given(st.lists(lines, max_size=4))
def test_what_is_exported_can_be_imported_as_objects(sent: list[bytes]) -> None:
    found = stored(*sent)
    exported = b"".join(Block("app", 1, len(found), b"\n".join([*found, b""])).with_places())
    imported = converter("auto", exported, NOW)
    again = stored(*(imported.receive(exported) + imported.end()).split(b"\n"))
    assert len(again) == len(found)
    for line, before in zip(again, found, strict=True):
        told, expected = json.loads(line), json.loads(before)
        assert told.pop("__ts") == expected.pop("_ts") == told.pop("_ts")
        assert told.pop("__pid") == expected.pop("_pid") == told.pop("_pid")
        assert (told.pop("__stream"), told.pop("time", TIME)) == ("app", TIME)
        del told["__seq"]
        expected.pop("time", None)
        assert same(told, expected)


@given(lines.filter(lambda line: line.strip(b" \t\r") != b""))
def test_import_and_the_daemon_agree_about_what_is_an_object(line: bytes) -> None:
    imported = converter("ndjson", line, NOW)
    converted = imported.receive(line + b"\n").removesuffix(b"\n")
    assert b"\n" not in converted
    if not line.startswith((b"\0", b"\xef\xbb\xbf")):  # which import takes away
        assert is_text(stored(line)[0]) == (
            is_text(stored(converted)[0]) or set(json.loads(converted)) == {"time", "message"}
        )


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text()
    | st.just(5000).map(lambda digits: 10**digits),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"deep": value}


@given(st.dictionaries(st.text(), anything, max_size=4))
def test_the_daemon_admits_every_object_that_a_client_encodes(record: dict[str, Any]) -> None:
    assert object_fields(encode_record(record).removesuffix(b"\n")) is not None


@pytest.mark.parametrize("levels", [253, 254, 255, 600, 5000])
def test_a_client_cuts_an_object_that_is_nested_too_deep(levels: int) -> None:
    line = encode_record(deep(levels)).removesuffix(b"\n")
    assert object_fields(line) is not None
    assert (b"..." in line) == (levels + 1 > NESTING_MAX)


@pytest.mark.parametrize("raw", [b"9" * 5000, nested(300)])
def test_a_client_does_not_trust_raw_values_to_be_within_the_limits(raw: bytes) -> None:
    for record in ({"raw": msgspec.Raw(raw)}, {"raw": [msgspec.Raw(raw)]}):
        assert object_fields(encode_record(record).removesuffix(b"\n")) is not None


@given(mutated() | odd, st.integers(0, 400))
def test_a_client_makes_one_line_of_an_object_over_several(text: bytes, place: int) -> None:
    several = text[:place] + b"\n" + text[place:]
    line = encode_line(several).removesuffix(b"\n")
    assert b"\n" not in line
    if object_fields(several.strip(b" \t\r\n")) is not None:
        assert same(json.loads(line), json.loads(several))
    elif line and b"\n" in several.strip(b"\n"):
        assert list(json.loads(line)) == ["message"]


# Control characters.


@given(admitted)
def test_control_characters_vanish_and_the_value_stays(text: bytes) -> None:
    clean = without_controls(text)
    assert not CONTROLS.search(clean.decode())
    assert same(json.loads(clean), json.loads(text))
    if not CONTROLS.search(text.decode()):
        assert clean == text


def test_control_characters_become_spaces_between_tokens_and_escapes_in_strings() -> None:
    text = '{\t"a\x7f":\r"\x80\x9b2K\x9f\xa0\u2028\u202e",\r\r"\u0101":[1\t]}'
    expected = (
        b',\\ "a\\u007f": "\\u0080\\u009b2K\\u009f\xc2\xa0\xe2\x80\xa8\xe2\x80\xae",  '
        b'"\xc4\x81":[1 ]}'
    ).replace(b"\\ ", b" ")
    for chunk in (text.encode() + b"\n", text.encode() + b"\nodd\n"):
        assert stamp(chunk, OPENING).body.split(b"\n")[0] == OPENING + expected


def test_no_text_name_or_reason_has_a_control_character() -> None:
    names = peer_fields(Peer(pid=1, comm="\x9b2K\x7f\x1b", unit="\x85.service"))
    reason = tombstone(stored(b"{}")[0], Mark(when=TIME, by="\x9b", why="\x7f\x85"))
    renamed, text = stored('{"_pid":"\x9b","\x7f":\r1}'.encode(), "\x9b2K\x7f\x1b".encode())
    for line in (names, reason, renamed, text):
        assert not CONTROLS.search(line.decode())
    assert json.loads(b"{%s}" % names[1:])["_comm"] == "\x9b2K\x7f\x1b"
    assert json.loads(reason)["_erased"]["why"] == "\x7f\x85"
    assert json.loads(text)["message"] == "\x9b2K\x7f\x1b"


# What earlier versions admitted.

OLD_VALUES = [
    b"9" * 4301,
    b"-" + b"9" * 100_000,
    nested(300),
    nested(900, opening=b'{"k":', closing=b"}"),
    nested(20_000),
    b"1e999",
    b'\r"\x7f\xc2\x9b2K"\t',
    b'"\\ud800"',
    b'{"\\udfff":1}',
]


def old(value: bytes) -> bytes:
    return OPENING + b',"level":"warn","a":' + value + b',"z":{"y":"end"}}'


@pytest.mark.parametrize("value", OLD_VALUES)
def test_what_earlier_versions_stored_is_no_damage_and_every_reader_reads_it(
    value: bytes, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    line = old(value)
    found = [*stored(b'{"a":1}'), line, *stored(b'{"b":1}')]
    content = segment(found)
    header, _, body = content.partition(b"\n")
    assert not list(check_segment(decode_header(header, "app"), body, "app/1"))
    salvaged = salvage(b"#" + content, 1, None, compressed=False)
    assert [each.line for each in salvaged.lines] == found
    fields = stored_fields(line)
    assert fields is not None
    assert bytes(fields["a"]) == value.strip()
    assert Where("level=warn").holds(line)
    assert Where("z.y=end").holds(line)
    assert not Where("level=error").holds(line)
    assert not Where("a=other").holds(line)
    output = Output("pretty", PRETTY)
    output.write(PendingGaps().batch(Block("app", 1, 3, b"\n".join([*found, b""]))))
    output.flush()
    assert b" WARN " in capsysbinary.readouterr().out


@given(mutated() | admitted | odd)
def test_the_scanner_reads_what_python_reads(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        return
    if depth(text) > sys.getrecursionlimit() // 2:
        return
    try:
        value = json.loads(text.decode(), parse_constant=lambda _: 1 / 0, parse_int=str)
    except (ValueError, ZeroDivisionError):
        value = None
    found = _scan(text)
    assert (found is not None) == isinstance(value, dict)
    if found is not None:
        read = {key: json.loads(bytes(raw), parse_int=str) for key, raw in found.items()}
        assert repr(read) == repr(value)


# Programs of others.


def as_double(value: Any) -> Any:
    """`value` with each number as a reader that only has doubles sees it."""
    match value:
        case bool():
            return value
        case int() | float():
            try:
                number = float(value)
            except OverflowError:
                number = math.inf if value > 0 else -math.inf
            # jq has no infinity: it takes the greatest double.
            return math.copysign(min(abs(number), sys.float_info.max), number) + 0.0
        case list():
            return [as_double(each) for each in value]
        case dict():
            return {key: as_double(each) for key, each in value.items()}
    return value


def same(one: Any, other: Any) -> bool:
    return bool(as_double(one) == as_double(other))


def same_to_jq(one: Any, other: Any) -> bool:
    """Like `same`: jq rounds a number to 17 digits first, and so may read the double beside it."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_to_jq(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_to_jq, one, other))
    one, other = as_double(one), as_double(other)  # it may write 3e21 as an integer
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=2 * sys.float_info.epsilon)
    return bool(one == other)


def by_jq_program(content: bytes, where: Path) -> list[Any]:
    assert JQ is not None
    found = subprocess.run([JQ, "-c", "."], input=content, capture_output=True, check=True)
    assert not found.stderr
    return [json.loads(line) for line in found.stdout.split(b"\n")[:-1]]


def by_jq_library(content: bytes, where: Path) -> list[Any]:
    jq = importlib.import_module("jq")
    found: list[Any] = jq.compile(".").input_text(content.decode()).all()
    return found


def by_duckdb(content: bytes, where: Path) -> list[Any]:
    path = where / "lines.ndjson"
    path.write_bytes(content)
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT json_extract(json, '$') FROM read_ndjson_objects(?)", [str(path)]
        ).fetchall()
    return [json.loads(row) for (row,) in rows]


def by_python(content: bytes, where: Path) -> list[Any]:
    return [strictly(line) for line in content.decode().split("\n")[:-1]]


has_library = importlib.util.find_spec("jq") is not None
READERS = [
    pytest.param(
        by_jq_program,
        marks=pytest.mark.skipif(JQ is None, reason="the program jq is not installed"),
        id="jq",
    ),
    pytest.param(
        by_jq_library,
        marks=pytest.mark.skipif(not has_library, reason="jq for Python is not installed"),
        id="libjq",
    ),
    pytest.param(by_duckdb, id="duckdb"),
    pytest.param(by_python, id="python"),
]


@pytest.mark.parametrize("reader", READERS)
@given(st.lists(lines, min_size=1, max_size=12))
@example([nested(NESTING_MAX), nested(NESTING_MAX + 1), nested(900), b'{"after":1}'])
@example([b'{"n":' + b"9" * 4301 + b"}", b'{"n":1e999,"m":-1E-999}', b'{"after":1}'])
@example([b'{"n":10000000000000.0006}'])
@example([b'{"n":3001002505011250051E3}'])
@example([b'{"a\\u0000b":"\\u0000","\\u0000":1}', b'{"":{"":[{}]}}', b'{"after":1}'])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_programs_of_others_read_every_record_and_the_same_values(
    reader: Callable[[bytes, Path], list[Any]], tmp_path: Path, sent: list[bytes]
) -> None:
    found = stored(*sent)
    if not found:
        return
    is_same = same_to_jq if reader in (by_jq_program, by_jq_library) else same
    placed = b"".join(Block("app", 1, len(found), b"\n".join([*found, b""])).with_places())
    for content in (b"\n".join([*found, b""]), placed, segment(found)):
        read = reader(content, tmp_path)
        assert len(read) == content.count(b"\n")
        for value, line in zip(read, content.split(b"\n")[:-1], strict=True):
            assert is_same(value, json.loads(line))


@pytest.mark.parametrize("reader", READERS)
def test_of_duplicate_keys_all_readers_of_whole_objects_take_the_last(
    reader: Callable[[bytes, Path], list[Any]], tmp_path: Path
) -> None:
    (line,) = stored(b'{"a":1,"b":2,"a":3}')
    (value,) = reader(line + b"\n", tmp_path)
    assert value["a"] == 3
    assert Record("app", 1, line).fields["a"] == 3
    assert Where("a=3").holds(line)
    assert not Where("a=1").holds(line)
