"""Records as logfmt, comma-separated values, chosen fields in JSON, and by a template."""

from collections.abc import Sequence
from datetime import UTC

import pytest

from logengine.format.block import Block, Rows
from logengine.rendering.clock import WallClock
from logengine.rendering.comma_separated import CommaSeparated
from logengine.rendering.fields import FieldChoice, names_in
from logengine.rendering.json_fields import JsonFields
from logengine.rendering.logfmt import Logfmt
from logengine.rendering.template import Template

TIME = "2026-11-23T20:00:00.123456Z"


def rows(inside: str) -> Rows:
    line = f'{{"_ts":"{TIME}","_pid":7,"_comm":"web",{inside}}}\n'.encode()
    (made,) = Block("app", 5, 1, line).rows()
    return made


FIELDS = (
    '"level":"warning","event":"it, \\"is\\"\\ndone","http":{"status":500,"path":"/x"},'
    '"ms":1.50,"list":[1,"a"],"user":"ann"'
)


@pytest.mark.parametrize(
    ("inside", "only", "hidden", "line"),
    [
        (
            FIELDS,
            [],
            [],
            (
                f"_stream=app _seq=5 _ts={TIME} _pid=7 _comm=web level=warning "
                r'event="it, \"is\"\ndone" http.status=500 http.path=/x ms=1.50 list="[1,\"a\"]" '
                "user=ann"
            ),
        ),
        (FIELDS, ["user", "http"], ["http.path"], "user=ann http.status=500"),
        (
            '"a b=":"","é":"é","c":"C:\\\\d","n":null',
            ["a b=", "é", "c", "n"],
            [],
            r'a_b_="" é="é" c="C:\\d" n=null',
        ),
        ('"d":' + "[" * 3000 + "]" * 3000, ["d"], [], "d=" + "[" * 3000 + "]" * 3000),
    ],
)
def test_logfmt(inside: str, only: Sequence[str], hidden: Sequence[str], line: str) -> None:
    assert Logfmt(FieldChoice(only, hidden)).render(rows(inside)).decode() == line + "\n"


@pytest.mark.parametrize(
    ("only", "hidden", "heading", "line"),
    [
        (
            [],
            ["http.path"],
            "_stream,_seq,_ts,_comm,_pid,level,message,fields",
            (
                f'app,5,{TIME},web,7,warning,"it, ""is""\\ndone",'
                '"http.status=500 ms=1.50 list=""[1,\\""a\\""]"" user=ann"'
            ),
        ),
        (
            [],
            ["fields", "_pid"],
            "_stream,_seq,_ts,_comm,level,message",
            f'app,5,{TIME},web,warning,"it, ""is""\\ndone"',
        ),
        (["user", "http.status", "none", "_seq"], [], "user,http.status,none,_seq", "ann,500,,5"),
        (["http"], [], "http", '"{""status"":500,""path"":""/x""}"'),
    ],
)
def test_comma_separated(
    only: Sequence[str], hidden: Sequence[str], heading: str, line: str
) -> None:
    rendering = CommaSeparated(FieldChoice(only, hidden))
    assert rendering.heading.decode() == heading + "\n"
    assert rendering.render(rows(FIELDS)).decode() == line + "\n"


@pytest.mark.parametrize(
    ("only", "hidden", "line"),
    [
        (["user", "http.status"], [], '{"_stream":"app","_seq":5,"user":"ann","http.status":500}'),
        (["http"], ["http.path"], '{"_stream":"app","_seq":5,"http":{"status":500}}'),
        (
            [],
            ["event", "http", "_comm"],
            (
                f'{{"_stream":"app","_seq":5,"_ts":"{TIME}","_pid":7,"level":"warning","ms":1.50,'
                '"list":[1,"a"],"user":"ann"}'
            ),
        ),
    ],
)
def test_chosen_fields_as_json(only: Sequence[str], hidden: Sequence[str], line: str) -> None:
    assert JsonFields(FieldChoice(only, hidden)).render(rows(FIELDS)).decode() == line + "\n"


def test_what_cannot_be_encoded_is_json_all_the_same() -> None:
    shown = JsonFields(FieldChoice(["half"])).render(rows('"half":"\\ud800"'))
    assert shown == b'{"_stream":"app","_seq":5,"half":"\\\\ud800"}\n'


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{time} {level} {message}", '2026-11-23 20:00:00.123Z WARN it, "is"\\ndone'),
        ("{stream}|{seq}|{cursor}|{program}[{pid}]", "app|5|app:5|web[7]"),
        ("{http.status:>5}|{user:<5}|{user:^5}|{user:5}", "  500|ann  | ann |ann  "),
        ("{{{user}}}", "{ann}"),
        (r"{user}\t{none}\n{_uid}{_ts}\\t", f"ann\t\n{TIME}\\t"),
        ("{fields}", 'http.status=500 http.path=/x ms=1.50 list="[1,\\"a\\"]" user=ann'),
        ("{.level} {http}", 'warning {"status":500,"path":"/x"}'),
        ("", ""),
    ],
)
def test_template(template: str, line: str) -> None:
    assert Template(template, WallClock(UTC)).render(rows(FIELDS)).decode() == line + "\n"


def test_a_template_shows_no_hidden_field() -> None:
    template = Template(
        "{user}{http.status}|{fields}", WallClock(UTC), FieldChoice((), ["user", "http"])
    )
    assert template.render(rows(FIELDS)).decode() == '|ms=1.50 list="[1,\\"a\\"]"\n'


@pytest.mark.parametrize("template", ["{", "}", "{}", "{a:x}", "{a:>99999}", "{a:>1001}", "{a{b}}"])
def test_a_template_with_a_mistake_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"brace|width"):
        Template(template, WallClock(UTC))


def test_names_are_separated_by_commas() -> None:
    assert names_in(["a,b.c", " d ,", ""]) == ["a", "b.c", "d"]
