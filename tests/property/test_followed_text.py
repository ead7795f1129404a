"""What a followed file's bytes become does not depend on where a reader stopped in between."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from logengine.followed_files.settings import FileFormat
from logengine.followed_files.text import Ending, TextRules, convert

NOW = datetime(2026, 11, 28, 20, tzinfo=UTC)
MAX_LINE = 200
TIME = "2026-11-28T20:00:00.5Z"

words = st.text(st.sampled_from('ab \t{}"\\é<>1\r\0'), max_size=12)
lines = st.one_of(
    words.map(str.encode),
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")),
    words.map(lambda word: json.dumps({"message": word}).encode()),
    st.integers(1, 3 * MAX_LINE).map(lambda size: b"y" * size),
    words.map(lambda word: f"  at {word}".encode()),
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("PF"), words).map(
        lambda of: f"{TIME} {of[0]} {of[1]} {of[2]}".encode()
    ),
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.booleans(), words).map(
        lambda of: json.dumps({"log": of[2] + "\n" * of[1], "stream": of[0], "time": TIME}).encode()
    ),
)
files = st.lists(lines, max_size=20).map(lambda each: b"".join(line + b"\n" for line in each))
formats = st.sampled_from(["auto", "lines", "json", "cri", "docker"])


def rules(form: FileFormat, start: bytes | None = None) -> TextRules:
    return TextRules(form, re.compile(start) if start else None, MAX_LINE, 1.0)


def read(data: bytes, of: TextRules, sizes: list[int]) -> list[dict[str, Any]]:
    """Reads a file that grows by `sizes`, each time from where the last records ended."""
    records: list[bytes] = []
    position = there = 0
    for size in [*sizes, len(data)]:
        there = min(len(data), there + size)
        while True:
            found = convert(
                data[position:there],
                of,
                NOW,
                Ending.MORE,
                is_cut=position > 0 and data[position - 1 : position] != b"\n",
            )
            records.append(found.lines)
            position += found.size
            if not found.size:
                break
    is_cut = position > 0 and data[position - 1 : position] != b"\n"
    last = convert(data[position:], of, NOW, Ending.NOTHING, is_cut=is_cut)
    assert position + last.size == len(data)
    return [json.loads(line) for line in b"".join([*records, last.lines]).splitlines()]


@given(files, formats, st.sampled_from([None, rb"^\S"]), st.lists(st.integers(0, 300), max_size=9))
def test_records_do_not_depend_on_how_a_file_grew(
    data: bytes, form: FileFormat, start: bytes | None, sizes: list[int]
) -> None:
    assert read(data, rules(form, start), sizes) == read(data, rules(form, start), [])


@given(st.lists(words.filter(lambda word: word.strip(" \t\r\0")), max_size=20))
def test_each_line_of_text_is_a_record_once_and_in_order(texts: list[str]) -> None:
    data = "".join(f"{number} {text}\n" for number, text in enumerate(texts)).encode()
    messages = [each["message"] for each in read(data, rules("lines"), [])]
    assert messages == [f"{number} {text}".rstrip("\r") for number, text in enumerate(texts)]


@given(st.lists(st.integers(1, 5 * MAX_LINE), min_size=1, max_size=5))
def test_a_long_line_is_in_pieces_which_are_the_line_together(sizes: list[int]) -> None:
    data = b"".join(b"z" * size + b"\n" for size in sizes)
    whole = [""]
    for record in read(data, rules("lines"), []):
        assert len(record["message"]) <= MAX_LINE
        whole[-1] += record["message"]
        if "partial" not in record:
            whole.append("")
    assert whole == [*("z" * size for size in sizes), ""]


def messages(data: bytes, of: TextRules) -> list[Any]:
    found = convert(data, of, NOW, Ending.QUIET)
    assert found.size == len(data)
    return [json.loads(line) for line in found.lines.splitlines()]


def test_lines_that_do_not_begin_a_record_belong_to_the_one_before() -> None:
    data = b"Traceback:\n  File x\n\n  File y\nError: z\n"
    assert [each["message"] for each in messages(data, rules("lines", rb"^\S"))] == [
        "Traceback:\n  File x\n\n  File y",
        "Error: z",
    ]


def test_a_record_of_several_lines_has_the_fields_of_its_first() -> None:
    data = b"Nov 28 19:00:00 host app[7]: failed\n  at x\n"
    (record,) = messages(data, rules("auto", rb"^\S"))
    assert record["message"] == "failed\n  at x"
    assert (record["app"], record["host"]) == ("app", "host")


def test_a_record_of_several_lines_waits_for_the_start_of_the_next_one() -> None:
    found = convert(b"one\n two\n", rules("lines", rb"^\S"), NOW, Ending.MORE)
    assert (found.lines, found.size) == (b"", 0)


def test_the_parts_of_a_line_of_cri_are_joined_for_each_output() -> None:
    data = (
        b"2026-11-28T20:00:00.1Z stdout P one \n"
        b"2026-11-28T20:00:00.2Z stderr F other\n"
        b"2026-11-28T20:00:00.3Z stdout F two\n"
        b'2026-11-28T20:00:00.4Z stdout F {"message":"three","time":"its own"}\n'
        b"2026-11-28T20:00:00.5Z stdout P the rest never came\n"
    )
    assert messages(data, rules("cri")) == [
        {"time": "2026-11-28T20:00:00.200000Z", "source": "stderr", "message": "other"},
        {"time": "2026-11-28T20:00:00.100000Z", "source": "stdout", "message": "one two"},
        {"source": "stdout", "message": "three", "time": "its own"},
        {
            "time": "2026-11-28T20:00:00.500000Z",
            "source": "stdout",
            "message": "the rest never came",
            "partial": True,
        },
    ]


def test_the_parts_of_a_line_of_docker_are_joined() -> None:
    data = (
        b'{"log":"one ","stream":"stdout","time":"2026-11-28T20:00:00.1Z"}\n'
        b'{"log":"two\\n","stream":"stdout","time":"2026-11-28T20:00:00.2Z"}\n'
        b"no line of docker\n"
    )
    assert messages(data, rules("docker")) == [
        {"time": "2026-11-28T20:00:00.100000Z", "source": "stdout", "message": "one two"},
        {"message": "no line of docker"},
    ]


def test_a_part_is_not_stored_before_the_rest_of_its_line() -> None:
    data = b"2026-11-28T20:00:00Z stdout P one\n2026-11-28T20:00:00Z stderr F other\n"
    assert convert(data, rules("cri"), NOW, Ending.MORE).size == 0
