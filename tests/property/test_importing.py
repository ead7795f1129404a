"""Whatever is imported becomes one line of JSON for each record, however it was cut."""

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.errors import MalformedInput
from logengine.exchange.importing import converter
from logengine.format.record import count_lines
from logengine.protocols import journal_export

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ACCESS = b'1.2.3.4 - ann [23/Nov/2026:20:00:00 +0000] "GET /a?b=\\"c HTTP/1.1" 404 17'

names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
fields = st.lists(st.tuples(names, st.binary(max_size=30)), min_size=1, max_size=6)
cuts = st.lists(st.integers(0, 400), max_size=6)


def exported(entries: Sequence[Sequence[tuple[str, bytes]]]) -> bytes:
    """What `journalctl -o export` prints of entries."""
    parts = []
    for entry in entries:
        for name, value in entry:
            if value.isascii() and all(byte >= 32 for byte in value):
                parts.append(b"%s=%s\n" % (name.encode(), value))
            else:
                length = len(value).to_bytes(8, "little")
                parts.append(b"%s\n%s%s\n" % (name.encode(), length, value))
        parts.append(b"\n")
    return b"".join(parts)


def converted(form: str, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    conversion = converter(form, data, NOW)
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
    return b"".join([*map(conversion.receive, pieces), conversion.end()])


@given(st.lists(fields, max_size=4), cuts)
def test_every_entry_of_a_journal_becomes_a_record(
    entries: list[list[tuple[str, bytes]]], cuts: list[int]
) -> None:
    lines = converted("journal", exported(entries), cuts).splitlines()
    assert len(lines) == len(entries)
    for entry, line in zip(entries, lines, strict=True):
        record = json.loads(line)
        for name in {name for name, _ in entry}:
            texts = [
                value.decode("utf-8", "backslashreplace") for each, value in entry if each == name
            ]
            key = "message" if name == "MESSAGE" else name
            assert record[key] == (texts if len(texts) > 1 else texts[0])


@given(st.binary(max_size=300), cuts, st.sampled_from(["auto", "text", "ndjson", "journal"]))
def test_how_an_input_is_cut_does_not_matter(data: bytes, cuts: list[int], form: str) -> None:
    def outcome(cuts: Sequence[int]) -> bytes | str:
        try:
            return converted(form, data, cuts)
        except MalformedInput as error:
            return str(error)

    whole = outcome([])
    assert outcome(cuts) == whole
    if isinstance(whole, bytes):
        for line in whole.splitlines():
            assert isinstance(json.loads(line), dict)


@given(
    st.lists(
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
        | st.sampled_from(
            [ACCESS, b"a=1 b=2", b"{}", b" {} ", b'{"a":1}', b'{"ts":17}', b'{"_ts":"x"}', b"[1]"]
        )
    ),
    st.sampled_from(["text", "ndjson", "auto"]),
)
def test_every_line_that_is_not_blank_becomes_one(lines: list[bytes], form: str) -> None:
    data = b"".join(line + b"\n" for line in lines)
    assert count_lines(converted(form, data)) == count_lines(data)


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (
            b'{"time":"x","_ts":"2026-11-23T20:00:00Z"}',
            {"time": "x", "_ts": "2026-11-23T20:00:00Z"},
        ),
        (
            b'{"_ts":"2026-11-23T20:00:00.000001Z","n":1}',
            {
                "time": "2026-11-23T20:00:00.000001Z",
                "_ts": "2026-11-23T20:00:00.000001Z",
                "n": 1,
            },
        ),
        (b'{"ts":1763928000.25}', {"time": "2025-11-23T20:00:00.250000Z", "ts": 1763928000.25}),
        (
            b'{"__REALTIME_TIMESTAMP":"1763928000000123"}',
            {
                "time": "2025-11-23T20:00:00.000123Z",
                "__REALTIME_TIMESTAMP": "1763928000000123",
            },
        ),
        (b'{"timestamp":"soon"}', {"timestamp": "soon"}),
        (b'{"ts":1e400,"a":1}', None),
        (b"{}", {}),
        (
            b"Nov 23 20:00:00 h x",
            {"time": "2026-11-23T20:00:00.000000Z", "message": "Nov 23 20:00:00 h x"},
        ),
        (b'{"half":', {"message": '{"half":'}),
        (
            b'\xef\xbb\xbf{"ts":17}',
            {"time": "1970-01-01T00:00:17.000000Z", "ts": 17},
        ),
        (
            b"\0\0\0\xef\xbb\xbf2026-11-23T20:00:00Z x",
            {
                "_nul_bytes": 3,
                "time": "2026-11-23T20:00:00.000000Z",
                "message": "2026-11-23T20:00:00Z x",
            },
        ),
        (b'\0{"a":1}', {"_nul_bytes": 1, "a": 1}),
        (b"\0{ }", {"_nul_bytes": 1}),
        (b"\0\0", {"_nul_bytes": 2, "message": ""}),
        (b"\xef\xbb\xbf", {"message": ""}),
        (b"\xff", {"message": "\\xff"}),
    ],
)
def test_the_time_that_an_object_tells_is_kept(
    line: bytes, record: dict[str, object] | None
) -> None:
    told = converted("auto", line)
    assert record is None or json.loads(told) == record


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (
            b"<13>Nov 23 20:00:00 web-1 sshd[77]: a: b",
            {
                "time": "2026-11-23T20:00:00.000000Z",
                "level": "notice",
                "facility": "user",
                "host": "web-1",
                "app": "sshd",
                "procid": "77",
                "message": "a: b",
            },
        ),
        (
            b'<13>1 2026-11-23T21:00:00+01:00 web-1 app 77 ID [ex@32473 k="v"] text',
            {
                "time": "2026-11-23T20:00:00.000000Z",
                "level": "notice",
                "facility": "user",
                "host": "web-1",
                "app": "app",
                "procid": "77",
                "msgid": "ID",
                "structured": {"ex@32473": {"k": "v"}},
                "message": "text",
            },
        ),
        (b"Feb 31 20:00:00 web-1 app: text", {"message": "Feb 31 20:00:00 web-1 app: text"}),
        (
            b"2026-11-23T21:00:00.5+01:00 web-1 kernel: [  0.1] text",
            {
                "time": "2026-11-23T20:00:00.500000Z",
                "host": "web-1",
                "app": "kernel",
                "message": "[  0.1] text",
            },
        ),
        (
            b"2026-11-23T20:00:00Z INFO main: started",
            {
                "time": "2026-11-23T20:00:00.000000Z",
                "message": "2026-11-23T20:00:00Z INFO main: started",
            },
        ),
        (
            ACCESS,
            {
                "time": "2026-11-23T20:00:00.000000Z",
                "message": ACCESS.decode(),
                "client": "1.2.3.4",
                "user": "ann",
                "method": "GET",
                "path": '/a?b=\\"c',
                "protocol": "HTTP/1.1",
                "status": 404,
                "bytes": 17,
            },
        ),
        (
            b'::1 - - [23/Nov/2026:20:00:00 +0000] "-" 400 - "-" "curl" 0.1',
            {
                "time": "2026-11-23T20:00:00.000000Z",
                "message": '::1 - - [23/Nov/2026:20:00:00 +0000] "-" 400 - "-" "curl" 0.1',
                "client": "::1",
                "agent": "curl",
                "status": 400,
            },
        ),
        (
            (
                b'ts=2026-11-23T20:00:00Z level=info msg="say \\"hi\\"" took=0.25 n=7 v=1.10 '
                b"id=007 ok=true e="
            ),
            {
                "time": "2026-11-23T20:00:00.000000Z",
                "ts": "2026-11-23T20:00:00Z",
                "level": "info",
                "message": 'say "hi"',
                "took": 0.25,
                "n": 7,
                "v": "1.10",
                "id": "007",
                "ok": True,
                "e": "",
            },
        ),
        (b"time=12:30 a=1", {"time": "12:30", "a": 1}),
        (b"a=1", {"message": "a=1"}),
        (b"a=1 b=2 and more", {"message": "a=1 b=2 and more"}),
        (b"a=1 a=2", {"message": "a=1 a=2"}),
        (b'{"PRIORITY":"3","MESSAGE":"x"}', {"level": "error", "PRIORITY": "3", "MESSAGE": "x"}),
        (b'{"PRIORITY":6,"level":"x"}', {"PRIORITY": 6, "level": "x"}),
        (b'{"PRIORITY":"9"}', {"PRIORITY": "9"}),
        (b"\0\0a=1 b=2", {"_nul_bytes": 2, "a": 1, "b": 2}),
    ],
)
def test_fields_of_known_forms_are_recognized(line: bytes, record: dict[str, object]) -> None:
    assert json.loads(converted("auto", line)) == record


@pytest.mark.parametrize("line", [b"a=1 b=2", ACCESS, b"<13>Nov 23 20:00:00 h app: x"])
def test_text_and_ndjson_recognize_no_fields(line: bytes) -> None:
    for form in ("text", "ndjson"):
        record = json.loads(converted(form, line))
        assert record.pop("message") == line.decode()
        assert record.keys() <= {"time"}


def test_an_entry_tells_its_time_and_its_message() -> None:
    data = b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1763928000000123\nMESSAGE=hello\nPRIORITY=6\n\n"
    assert json.loads(converted("auto", data)) == {
        "time": "2025-11-23T20:00:00.000123Z",
        "level": "info",
        "__CURSOR": "s=1;i=2",
        "__REALTIME_TIMESTAMP": "1763928000000123",
        "message": "hello",
        "PRIORITY": "6",
    }


@given(cuts)
def test_a_field_that_is_too_long_is_left_out_and_named(cuts: list[int]) -> None:
    data = exported([[("A", b"x" * 90), ("B", b"\n" * 90), ("C", b"c")], [("D", b"d")]])
    with patch.object(journal_export, "FIELD_BYTES_MAX", 40):
        first, second = converted("journal", data, cuts).splitlines()
    assert json.loads(first) == {"C": "c", "_left_out": ["A", "B"]}
    assert json.loads(second) == {"D": "d"}


def test_an_entry_that_is_too_large_is_cut_to_its_first_fields() -> None:
    data = exported([[(name, b"x" * 30) for name in "ABC"]])
    with patch.object(journal_export, "ENTRY_BYTES_MAX", 70):
        assert json.loads(converted("journal", data))["_left_out"] == ["C"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"A=1\n\nno name=2\n", "at byte 5: b'no name' is not the name of a field"),
        (b"A\n\x02\0\0\0\0\0\0\0xyz\n", "at byte 12: expected a newline after the 2 bytes of A"),
        (b"A\n\x09\0\0\0\0\0\0\0xyz", "the input ends inside a field"),
        (b"A=1", "the input ends inside a field"),
        (b"x" * 500, "expected the name of a field"),
    ],
)
def test_what_is_no_journal_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(MalformedInput, match=said):
        converted("journal", data)
