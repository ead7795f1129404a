"""The filter, which searches whole bodies, against each line taken alone."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logengine.errors import InvalidFilter
from logengine.format.block import Block
from logengine.reading.filter import Filter, Grep, Where
from logengine.reading.newest_records import last_records
from logengine.reading.reader import StreamReader
from logengine.reading.required_literal import required_literal
from tests.property.test_reader import cuts, segments, stream

# Few characters, so that much matches; among them what ends a line for Python but not here.
TEXT = st.text('aAbB1 .\\"/{}é\r\x0b', max_size=8).map(str.encode)
lines_of_text = st.lists(TEXT, max_size=12)
PIECES = [
    *("a", "b", "A", "1", " ", "é", r"\.", r"\\", r"\{", "{", "}", "{}", '"', "ab", "aab"),
    *(".", "^", "$", r"\s", r"\S", r"\d", r"\b", r"\B", r"\A", r"\Z", "[ab]", "[^a]", "[]a]"),
    *("a*", "b?", "a+", "a{2}", "b{1,}", "a{,2}", "b+?", "a*?", "(ab)", "(a|b)", "(?:ab)?", "|"),
    *(r"\x61", r"\n", "(?=b)", "(?!b)", "(?<=a)", "(?i)", "(a(b)?)*", r"[\]a]b", "(?#x)"),
]
patterns = st.lists(st.sampled_from(PIECES), max_size=5).map("".join).map(str.encode)


def chosen(filter_: Filter, lines: list[bytes]) -> list[bytes]:
    """The lines that a filter chooses of a body, whose ranges are held to what they are to be."""
    body = b"".join(line + b"\n" for line in lines)
    found = []
    end = -1
    for start, stop in filter_.ranges(body):
        assert end < start < stop  # neighbours are in one range
        end = stop
        found += body[start:stop].split(b"\n")[:-1]
    return found


def searching(pattern: bytes, *, ignore_case: bool) -> Any:
    return re.compile(pattern, re.IGNORECASE if ignore_case else 0).search


@given(lines_of_text, patterns, st.booleans(), st.booleans())
@example([b"b", b"a"], b"a|b", False, False)
@example([b"aB", b""], b"ab$", True, True)
@pytest.mark.filterwarnings("ignore")
def test_a_pattern_chooses_what_matches_line_by_line(
    lines: list[bytes], pattern: bytes, ignore_case: bool, invert: bool
) -> None:
    try:
        search = searching(pattern, ignore_case=ignore_case)
    except re.error:
        with pytest.raises(InvalidFilter):
            Grep(pattern)
        return
    found = chosen(Filter([Grep(pattern, ignore_case=ignore_case)], invert=invert), lines)
    assert found == [line for line in lines if bool(search(line)) != invert]


@given(lines_of_text, TEXT, st.booleans(), st.booleans())
def test_a_text_chooses_the_lines_it_is_in(
    lines: list[bytes], text: bytes, ignore_case: bool, invert: bool
) -> None:
    grep = Grep(text, fixed=True, ignore_case=ignore_case)
    expected = [
        line
        for line in lines
        if (text.lower() in line.lower() if ignore_case else text in line) != invert
    ]
    assert chosen(Filter([grep], invert=invert), lines) == expected


@given(patterns, TEXT)
@pytest.mark.filterwarnings("ignore")
def test_what_a_pattern_matches_has_its_literal(pattern: bytes, text: bytes) -> None:
    try:
        match = re.search(pattern, text)
    except re.error:
        return
    assert match is None or required_literal(pattern) in text


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("needle", "needle"),
        ("time.?out", "time"),
        (r"status=[45]\d\d failed", "status="),
        (r'"ms":99\.[0-9]', '"ms":99.'),
        ("connections? refused", "connection"),
        ('{"level":"info"', '{"level":"info"'),
        ("x{2,3}yy", "yy"),
        ("(GET|POST) /index", " /index"),
        ("ab+cd", "ab"),
        ("error|warning", ""),
        ("(?i)error", ""),
        (r"\x41bc", ""),
    ],
)
def test_patterns_that_people_write_have_a_literal(pattern: str, literal: str) -> None:
    assert required_literal(pattern.encode()).decode() == literal


VALUES = ["a", "1", "1.0", "true", "null", "é", 'a"b', "a/b", "\\", "", "{}", "[]", "a\tb", "b.c"]
scalars = st.one_of(
    st.sampled_from(VALUES), st.integers(0, 2), st.booleans(), st.none(), st.just(1.0)
)
KEYS = ["a", "b", "c", "a.b", "b.c", "é", "_uid"]
keys = st.sampled_from(KEYS)
values = st.recursive(
    scalars,
    lambda inner: st.dictionaries(keys, inner) | st.lists(inner, max_size=2),
    max_leaves=4,
)
records = st.dictionaries(keys, values, max_size=4)


def meant(record: Any, key: str) -> Iterator[Any]:
    """The values that a key may mean."""
    if not isinstance(record, dict):
        return
    if key in record:
        yield record[key]
    for place, character in enumerate(key):
        if character == "." and key[:place] in record:
            yield from meant(record[key[:place]], key[place + 1 :])


def is_value(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    return not isinstance(value, dict | list) and json.dumps(value) == text


def encoded(record: Any, *, ascii_only: bool, spaces: bool, slashes: bool) -> bytes:
    text = json.dumps(record, ensure_ascii=ascii_only, separators=None if spaces else (",", ":"))
    return (text.replace("/", "\\/") if slashes else text).encode()


conditions_asked = st.lists(
    st.tuples(st.sampled_from([*KEYS, "a.b.c", "a.a"]), st.sampled_from([*VALUES, "0", "false"])),
    min_size=1,
    max_size=2,
)


@given(st.lists(records, max_size=6), conditions_asked, st.booleans(), st.booleans(), st.booleans())
def test_a_field_chooses_the_records_that_have_the_value(
    objects: list[Any],
    conditions: list[tuple[str, str]],
    ascii_only: bool,
    spaces: bool,
    slashes: bool,
) -> None:
    lines = [
        encoded(each, ascii_only=ascii_only, spaces=spaces, slashes=slashes) for each in objects
    ]
    filter_ = Filter.of([f"{key}={value}" for key, value in conditions])
    expected = [
        line
        for each, line in zip(objects, lines, strict=True)
        if all(any(is_value(v, text) for v in meant(each, key)) for key, text in conditions)
    ]
    assert chosen(filter_, lines) == expected


@given(lines_of_text, st.booleans())
def test_a_line_that_is_no_object_has_no_field(lines: list[bytes], invert: bool) -> None:
    objects = [b'{"a":"1","b":"%d"}' % number for number in range(2)]
    filter_ = Filter([Grep(b'b":"0', fixed=True)], [Where("a=1")], invert=invert)
    assert chosen(filter_, [*lines, *objects]) == [objects[invert]]


@pytest.mark.parametrize("text", ["a", "=a", "", "_seq=5", "_stream=app", "a\udc80=1"])
def test_what_is_no_condition_is_told(text: str) -> None:
    with pytest.raises(InvalidFilter):
        Where(text)


def test_an_escaped_character_is_no_hiding_place() -> None:
    lines = [rb'{"x":"\u0061bc"}', rb'{"x":"abc"}', rb'{"\u0078":"abc"}', b'{"x":"abd"}']
    assert chosen(Filter.of("x=abc"), lines) == lines[:3]
    lines = [rb'{"x":"a\/bcd"}', b'{"x":"a/bcd"}', rb'{"x":"\u0061/bcd"}', b'{"x":"a-bcd"}']
    for text in ("x=a/bcd", "x == a/bcd", 'x ~ "a/bcd$"', "x in (a/bcd, y)"):
        assert chosen(Filter.of(text), lines) == lines[:3]


@pytest.mark.parametrize("pattern", [b"(", b"a\nb", b"a{99999999999}", b"[" * 200])
def test_what_is_no_pattern_is_told(pattern: bytes) -> None:
    with pytest.raises(InvalidFilter):
        Grep(pattern)


def test_without_conditions_all_is_chosen_as_it_is() -> None:
    block = Block("app", 1, 1, b'{"_ts":"0"}\n')
    (same,) = Filter().choose(block)
    assert same is block


@given(st.lists(st.booleans(), max_size=40), cuts, st.integers(0, 45), st.sets(st.integers(1, 40)))
def test_the_last_records_that_match_are_the_last(
    wanted: list[bool], sizes: list[int], count: int, sealed: set[int]
) -> None:
    lines = [
        b'{"_ts":"2026-11-23T20:00:00.000000Z","n":%d,"x":"%s"}' % (seq, b"yes" if is_it else b"no")
        for seq, is_it in enumerate(wanted, 1)
    ]
    expected = [(seq, line) for seq, line in enumerate(lines, 1) if b"yes" in line]
    with stream(segments(lines, sizes), sealed) as data:
        reader = StreamReader(data, "app", _no_problem)
        found = last_records(reader, count, Filter([Grep(b"yes")]))
        last = expected[-count:] if count else []
        assert [(each.seq, each.line) for each in found] == last
        assert reader.next_seq == len(lines) + 1


def _no_problem(problem: object) -> None:
    raise AssertionError(problem)


def test_of_an_empty_stream_nothing_matches() -> None:
    with stream({}) as data:
        assert last_records(StreamReader(data, "app", _no_problem), 3, Filter([Grep(b"x")])) == []
