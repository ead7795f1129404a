"""Rows for people: what a record looks like."""

import json
import re
from datetime import UTC, timedelta, timezone
from itertools import count, repeat

import pytest

from logengine.format.block import Block, Rows
from logengine.reading.batch import Batch
from logengine.rendering.clock import Ages, Clock, Deltas, WallClock
from logengine.rendering.fields import FieldChoice
from logengine.rendering.levels import shown
from logengine.rendering.pretty import Look, Pretty
from logengine.rendering.styled import plain

TIME = "2026-11-23T20:00:00.123456Z"
HEAD = "2026-11-23 20:00:00.123Z"
UTC_CLOCK = WallClock(UTC)


def line(fields: str, time: str = TIME) -> bytes:
    """A stored line with this inside of an object, as it is."""
    return f'{{"_ts":"{time}","_pid":7,"_uid":1,"_gid":1,"_comm":"web",{fields}}}\n'.encode()


def rows(*lines: bytes, stream: str = "app") -> Rows:
    (made,) = Block(stream, 1, len(lines), b"".join(lines)).rows()
    return made


def pretty(inside: str, clock: Clock = UTC_CLOCK, **look: object) -> str:
    text = Pretty(Look(clock=clock, **look)).render(rows(line(inside))).decode()  # type: ignore[arg-type]
    assert text.endswith("\n")
    return text[:-1]


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ('"level":"info","event":"hi","user":"ann"', "INFO  app web[7]: hi  user=ann"),
        ('"message":"plain text"', "      app web[7]: plain text"),
        ('"msg":"it","n":5', "      app web[7]: it  n=5"),
        ('"n":5', "      app web[7]: n=5"),
        ('"event":"","n":5', "      app web[7]: n=5"),
        ('"event":{"a":1}', '      app web[7]: {"a":1}'),
        ('"event":5,"message":"m"', "      app web[7]: 5  message=m"),
        ('"a":"two words","b":"","c":"x=y"', '      app web[7]: a="two words" b="" c=x=y'),
        ('"a":"say \\"it\\""', '      app web[7]: a="say \\"it\\""'),
        (
            '"http":{"status":500,"in":{"ms":1.50}}',
            "      app web[7]: http.status=500 http.in.ms=1.50",
        ),
        ('"http":{},"list":[1,{"a":2.0}]', '      app web[7]: http={} list=[1,{"a":2.0}]'),
        ('"a":true,"b":null,"c":-0.0,"d":1e400', "      app web[7]: a=true b=null c=-0.0 d=1e400"),
        (
            '"n":123456789012345678901234567890',
            "      app web[7]: n=123456789012345678901234567890",
        ),
        ('"a b":1,"c=d":2,"":3', '      app web[7]: "a b"=1 "c\\=d"=2 ""=3'),
        ('"event":"größe","wort":"größer als"', '      app web[7]: größe  wort="größer als"'),
        ('"a":"one\u00a0level=error"', '      app web[7]: a="one\u00a0level=error"'),
        ('"event":"x","half":"\\ud800"', "      app web[7]: x  half=\\ud800"),
        ('"event":"tab\\tit"', "      app web[7]: tab\\tit"),
        ('"event":"old\x7f"', "      app web[7]: old\\x7f"),
        ('"_erased":"by the law"', '      app web[7]: _erased="by the law"'),
        ('"path":"C:\\\\dir"', "      app web[7]: path=C:\\dir"),
        ('"level":"loud","event":"x"', "      app web[7]: x  level=loud"),
        ('"level":{"a":1},"event":"x"', "      app web[7]: x  level.a=1"),
        ('"level":[],"event":"x"', "      app web[7]: x  level=[]"),
    ],
)
def test_a_record_is_a_row(fields: str, row: str) -> None:
    assert pretty(fields) == f"{HEAD} {row}"


@pytest.mark.parametrize(
    ("field", "level"),
    [
        ('"level":"warning"', "WARN "),
        ('"level":"WARN"', "WARN "),
        ('"level":"Error"', "ERROR"),
        ('"level":30', "INFO "),
        ('"level":50', "ERROR"),
        ('"level":3', "ERROR"),
        ('"level":"3"', "ERROR"),
        ('"PRIORITY":"4"', "WARN "),
        ('"levelno":40', "ERROR"),
        ('"severity":"CRITICAL"', "CRIT "),
        ('"level":"notice"', "NOTE "),
        ('"lvl":"dbg"', "DEBUG"),
        ('"level":"emerg"', "EMERG"),
        ('"level":true', "     "),
        ('"level":1.5', "     "),
    ],
)
def test_a_level_is_shown_in_five_characters_however_it_is_written(field: str, level: str) -> None:
    row = pretty(f'{field},"event":"x"')
    assert row.startswith(f"{HEAD} {level} app web[7]: x")
    assert (row.endswith(": x")) == bool(level.strip())


def test_every_level_fits_its_column() -> None:
    assert {len(shown(rank)[0]) <= 5 for rank in range(9)} == {True}


def test_later_lines_of_a_text_are_indented_below_the_row() -> None:
    text = "failed\nbecause\n2026-11-23 20:00:00.123 ERROR app forged"
    record = json.dumps(
        {"level": "error", "event": text, "exception": "Traceback:\n  x\n\ty\n", "n": 1}
    )
    assert pretty(record[1:-1]).split("\n") == [
        f"{HEAD} ERROR app web[7]: failed  n=1",
        "    because",
        "    2026-11-23 20:00:00.123 ERROR app forged",
        "    exception:",
        "        Traceback:",
        "          x",
        "            y",
    ]


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\u2066\x7f\r\x0b\x85\u2028\u200f"


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("columns", [None, 30])
def test_nothing_that_a_terminal_acts_on_is_printed(colours: bool, columns: int | None) -> None:
    record = {
        "event": HOSTILE + "\n" + HOSTILE,
        "level": HOSTILE,
        HOSTILE: HOSTILE,
        "o": {HOSTILE: [HOSTILE]},
    }
    row = pretty(json.dumps(record)[1:-1], colours=colours, columns=columns)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u200f]", plain(row))
    assert "\\x1b]0;owned" in plain(row)
    for each in row.split("\n")[1:]:
        assert each.startswith("    ")


def test_colours_change_nothing_but_the_colours() -> None:
    fields = '"level":"error","event":"hi","user":"ann","http":{"status":500}'
    coloured = pretty(fields, colours=True)
    assert "\x1b[31mERROR\x1b[39m" in coloured
    assert "\x1b[1mhi\x1b[22m" in coloured
    assert "\x1b[36mhttp.status\x1b[39m=500" in coloured
    assert plain(coloured) == pretty(fields)


@pytest.mark.parametrize(
    ("only", "hidden", "row"),
    [
        (["user"], [], "hi  user=ann"),
        (["http.status", "user"], [], "hi  http.status=500 user=ann"),
        (["http"], ["http.path"], "hi  http.status=500"),
        (["list.1", "_uid", "none"], [], "hi  list.1=8 _uid=1"),
        ([], ["http", "list"], "hi  user=ann"),
        ([], ["http.path", "list"], "hi  user=ann http.status=500"),
        ([], ["user", "http", "list", "event"], ""),
    ],
)
def test_fields_can_be_chosen_and_hidden(only: list[str], hidden: list[str], row: str) -> None:
    fields = '"event":"hi","user":"ann","http":{"status":500,"path":"/"},"list":[7,8]'
    shown_row = pretty(fields, fields=FieldChoice(only, hidden))
    assert shown_row == f"{HEAD}       app web[7]: {row}".rstrip(" ")


def test_short_rows_have_no_fields_and_no_second_line() -> None:
    clock = WallClock(UTC, time_only=True)
    row = pretty('"level":"info","event":"a\\nb","n":1', clock, is_short=True)
    assert row == "20:00:00.123 INFO  a\\nb"
    chosen = FieldChoice(["n"])
    row = pretty('"level":"info","event":"a","n":1', clock, is_short=True, fields=chosen)
    assert row == "20:00:00.123 INFO  a  n=1"


def test_a_short_row_without_a_message_has_the_fields() -> None:
    clock = WallClock(UTC, time_only=True)
    row = pretty('"level":"info","a":"b\\nc","n":1', clock, is_short=True)
    assert row == '20:00:00.123 INFO  a="b\\nc" n=1'


def test_what_is_searched_is_shown_reversed_across_colours() -> None:
    row = pretty(
        '"event":"one two","user":"ann"', colours=True, highlighted=re.compile("two|user=ann")
    )
    assert "\x1b[1mone \x1b[7mtwo\x1b[27m" in row
    assert plain(row) == f"{HEAD}       app web[7]: one two  user=ann"
    reversed_parts = re.findall("\x1b\\[7m(.*?)\x1b\\[27m", row)
    assert [plain(part) for part in reversed_parts] == ["two", "user=ann"]


def test_rows_are_wrapped_between_words_and_indented() -> None:
    row = pretty('"event":"' + "word " * 11 + 'word","user":"ann"', columns=50)
    assert row.split("\n") == [
        "2026-11-23 20:00:00.123Z       app web[7]: word",
        "    word word word word word word word word word",
        "    word word  user=ann",
    ]


def test_wide_characters_take_two_columns() -> None:
    row = pretty('"event":"' + "漢字" * 20 + '"', columns=60)
    assert [len(each) for each in row.split("\n")] == [43 + 8, 4 + 28, 4 + 4]


def test_a_record_that_nothing_decodes_is_shown_as_it_is() -> None:
    deep = '"event":"deep","d":' + "[" * 3000 + "]" * 3000
    assert pretty(deep).startswith(f"{HEAD}       app web[7]: deep  d=[[[")
    digits = '"event":"long","n":' + "9" * 5000
    assert pretty(digits) == f"{HEAD}       app web[7]: long  n={'9' * 5000}"


def test_records_of_several_streams_are_rendered_in_their_order() -> None:
    lines = [line(f'"event":"{number}"') for number in range(300)]
    records = [
        each
        for number, one in enumerate(lines)
        for each in Block("ab"[number % 2], number + 1, 1, one).records()
    ]
    look = Look(clock=UTC_CLOCK)
    shown_rows = b"".join(map(Pretty(look).render, Batch(records, {}).rows())).decode().splitlines()
    assert [row.split()[2:] for row in shown_rows] == [
        ["ab"[number % 2], "web[7]:", str(number)] for number in range(300)
    ]


def test_a_record_without_a_process_names_only_its_stream() -> None:
    made = b'{"_ts":"2026-11-23T20:00:00.123456Z","event":"x"}\n'
    assert Pretty(Look(clock=UTC_CLOCK)).render(
        Rows(repeat("app"), count(1), [made[:-1]], made)
    ) == (f"{HEAD}       app: x\n".encode())


def test_times_are_shown_in_a_zone() -> None:
    assert WallClock(UTC)(TIME) == "2026-11-23 20:00:00.123Z"
    assert WallClock(timezone(timedelta(hours=5, minutes=30)))(TIME) == "2026-11-24 01:30:00.123"
    assert WallClock(UTC, time_only=True)(TIME) == "20:00:00.123"
    assert WallClock(timezone(timedelta(hours=-1)))("0001-01-01T00:00:00.000000Z").startswith(
        "0001"
    )


@pytest.mark.parametrize(
    ("time", "age"),
    [
        ("2026-11-23T20:00:00.900000Z", "0s ago"),
        ("2026-11-23T19:59:18.000000Z", "42s ago"),
        ("2026-11-23T19:56:55.000000Z", "3m05s ago"),
        ("2026-11-23T17:55:00.000000Z", "2h05m ago"),
        ("2026-11-20T16:00:00.000000Z", "3d04h ago"),
        ("2026-11-23T20:00:05.000000Z", "in 5s"),
    ],
)
def test_ages_are_shown_in_two_units(time: str, age: str) -> None:
    assert Ages(lambda: 1795464000.5)(time) == age.rjust(11)


def test_deltas_are_shown_after_the_time_of_the_day() -> None:
    clock = Deltas(WallClock(UTC, time_only=True))
    assert clock("2026-11-23T20:00:00.000000Z") == "20:00:00.000    +0.000000s"
    assert clock("2026-11-23T20:01:02.000123Z") == "20:01:02.000   +62.000123s"
    assert clock("2026-11-23T20:01:01.000000Z") == "20:01:01.000    -1.000123s"
