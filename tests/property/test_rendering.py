"""Whatever is in a record, what is printed of it is harmless, whole, and fits the terminal."""

import csv
import io
import json
import re
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from logengine.format.block import Block, Rows
from logengine.format.record import Peer, envelope, peer_fields, stamp
from logengine.printable import columns
from logengine.rendering import Rendering
from logengine.rendering.clock import WallClock
from logengine.rendering.comma_separated import CommaSeparated
from logengine.rendering.fields import FieldChoice
from logengine.rendering.json_fields import JsonFields
from logengine.rendering.logfmt import Logfmt
from logengine.rendering.pretty import Look, Pretty
from logengine.rendering.styled import COLUMNS_MIN, highlight, plain, wrap
from logengine.rendering.template import Template

UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
OPENING = envelope("2026-11-23T20:00:00.123456Z", peer_fields(Peer(7, 1, 1, "web")))
CLOCK = WallClock(UTC)
NAMES = st.sampled_from(
    ["level", "event", "message", "msg", "exception", "user", "a.b", "a", "b", "_pid"]
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text('\x1b\x07\x9b\r\n\t "\\=\u202e\u2066\x85漢é\u0301ab[]m;', max_size=30),
    st.sampled_from(["info", "ERROR", "", "a b", "null", "5"]),
)
VALUES = st.recursive(
    st.one_of(
        TEXTS,
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, TEXTS), inner, max_size=3)
    ),
    max_leaves=6,
)
RECORDS = st.lists(
    st.one_of(st.dictionaries(st.one_of(NAMES, TEXTS), VALUES, max_size=5)), min_size=1, max_size=5
)


def rows_of(records: Iterable[dict[str, Any]], *, ascii_only: bool = True) -> Rows:
    text = "".join(json.dumps(each, ensure_ascii=ascii_only) + "\n" for each in records)
    stored = stamp(text.encode("utf-8", "replace"), OPENING)
    (rows,) = Block("app", 1, stored.records, stored.body).rows()
    return rows


RENDERINGS: list[Rendering] = [
    Pretty(Look(clock=CLOCK)),
    Pretty(Look(clock=CLOCK, is_short=True)),
    Pretty(Look(clock=CLOCK, fields=FieldChoice(["a", "user"]))),
    Pretty(Look(clock=CLOCK, fields=FieldChoice((), ["a.b", "event"]))),
    Logfmt(),
    CommaSeparated(FieldChoice()),
    CommaSeparated(FieldChoice(["user", "a.b"])),
    JsonFields(FieldChoice((), ["a.b"])),
    Template("{time} {level:<5} {message} {a.b:>9} {fields}", CLOCK),
]


@given(RECORDS, st.booleans())
def test_nothing_that_a_terminal_acts_on_is_printed(
    records: list[dict[str, Any]], ascii_only: bool
) -> None:
    rows = rows_of(records, ascii_only=ascii_only)
    for rendering in RENDERINGS:
        printed = rendering.render(rows).decode()
        assert not UNSAFE.search(printed) or isinstance(rendering, JsonFields)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", printed)
        if isinstance(rendering, Pretty):
            begins = [each for each in printed.splitlines() if not each.startswith("    ")]
            assert len(begins) == len(rows.lines)
            assert all(each.startswith("2026-11-23 20:00:00.123Z") for each in begins)
        else:
            assert printed.count("\n") == len(rows.lines)


@given(RECORDS, st.booleans())
def test_a_row_is_the_same_on_the_fast_path(
    records: list[dict[str, Any]], ascii_only: bool
) -> None:
    rows = rows_of(records, ascii_only=ascii_only)
    for colours in (False, True):
        pretty = Pretty(Look(clock=CLOCK, colours=colours))
        exact = [pretty._exact_row("app", line) + "\n" for line in rows.lines]
        assert pretty.render(rows).decode() == "".join(exact)


@given(RECORDS, st.integers(COLUMNS_MIN, 90), st.sampled_from(["a", "[a-b]+", ".", "e.e|="]))
@example([{"event": " "}, {"event": "a  "}, {"event": "a  ", "b": 1}, {"event": " \n "}], 40, "a")
def test_rows_fit_a_terminal_and_are_the_same_text(
    records: list[dict[str, Any]], width: int, pattern: str
) -> None:
    rows = rows_of(records)
    look = Look(clock=CLOCK, colours=True, highlighted=re.compile(pattern))
    whole = plain(Pretty(look).render(rows).decode())
    assert whole == Pretty(Look(clock=CLOCK)).render(rows).decode()
    narrow = Look(clock=CLOCK, colours=True, columns=width, highlighted=re.compile(pattern))
    printed = plain(Pretty(narrow).render(rows).decode())
    assert max(map(columns, printed.split("\n"))) <= width
    assert re.sub(r"[ \n]", "", printed) == re.sub(r"[ \n]", "", whole)


@given(st.lists(st.text("ab 漢\u0301é", max_size=40), max_size=5), st.integers(COLUMNS_MIN, 50))
def test_wrapping_loses_only_spaces(words: list[str], width: int) -> None:
    text = " ".join(words)
    wrapped = wrap(text, width, 4)
    assert all(columns(each) <= width for each in wrapped.split("\n"))
    assert re.sub(r"[ \n]", "", wrapped) == text.replace(" ", "")


@given(st.text("ab\x1b", max_size=20), st.sampled_from(["a", "ab", "b+", "(?=a)"]))
def test_highlighting_reverses_exactly_the_matches(letters: str, pattern: str) -> None:
    text = letters.replace("\x1b", "\x1b[1m")
    shown = highlight(text, re.compile(pattern))
    assert plain(shown) == plain(text)
    parts = [plain(part) for part in re.findall("\x1b\\[7m(.*?)\x1b\\[27m", shown)]
    assert parts == [found for found in re.findall(pattern, plain(text)) if found]


@given(RECORDS)
def test_comma_separated_values_are_read_back(records: list[dict[str, Any]]) -> None:
    rows = rows_of(records)
    rendering = CommaSeparated(FieldChoice())
    read = list(csv.reader(io.StringIO((rendering.heading + rendering.render(rows)).decode())))
    assert read[0] == ["_stream", "_seq", "_ts", "_comm", "_pid", "level", "message", "fields"]
    assert [each[:5] for each in read[1:]] == [
        ["app", str(seq), "2026-11-23T20:00:00.123456Z", "web", "7"]
        for seq in range(1, len(rows.lines) + 1)
    ]


@given(RECORDS)
def test_json_without_hidden_fields_is_the_record(records: list[dict[str, Any]]) -> None:
    rows = rows_of(records)
    printed = JsonFields(FieldChoice((), ["no such field"])).render(rows).splitlines()
    for seq, (line, shown) in enumerate(zip(rows.lines, printed, strict=True), 1):
        assert json.loads(shown) == {"_stream": "app", "_seq": seq, **json.loads(line)}
