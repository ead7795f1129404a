"""What an expression means, and what is said about one that means nothing."""

import copy
import pickle
from datetime import UTC
from typing import Any

import pytest

from logengine.errors import InvalidFilter
from logengine.filtering.syntax import CHARACTERS_MAX, NESTING_MAX, parse
from logengine.filtering.tree import Expression, Has, Name, Not
from logengine.reading.filter import Where

MISTAKES = [
    (
        "",
        """
expected a condition, such as level >= warning

^""",
    ),
    (
        "level",
        """
expected an operator after the field level: =, ==, !=, <, <=, >, >=, ~, !~ or in; or has before it
level
     ^""",
    ),
    (
        "level >=",
        """
expected a value after >=
level >=
        ^""",
    ),
    (
        "level => warning",
        """
=> is not an operator; write >=
level => warning
      ^^""",
    ),
    (
        "message~=x",
        """
~= is not an operator; write ~
message~=x
       ^^""",
    ),
    (
        "level >> 5",
        """
>> is not an operator; expected one of =, ==, !=, <, <=, >, >=, ~, !~ or in
level >> 5
      ^^""",
    ),
    (
        "level >= wran",
        """
'wran' is not a level; expected a number, or one of trace, debug, info, notice, warning, error, \
critical, alert, emergency
level >= wran
         ^^^^""",
    ),
    (
        "size > 10K",
        """
'10K' is not a number, duration, size or time; to compare text by its characters, put it in quotes
size > 10K
       ^^^""",
    ),
    (
        "time > 2026-13-01",
        """
'2026-13-01' is not a time; expected one such as 2026-11-20, 2026-11-20T14:00 or \
2026-11-20T14:00:00Z; put a text in quotes
time > 2026-13-01
       ^^^^^^^^^^""",
    ),
    (
        "ok > true",
        """
true has no order; compare it with == or !=
ok > true
     ^^^^""",
    ),
    (
        'path ~ "^/h(e"',
        """
this is not a regular expression: missing ), unterminated subpattern
path ~ "^/h(e"
           ^""",
    ),
    (
        "(a == 1",
        """
this parenthesis is not closed; expected )
(a == 1
^""",
    ),
    (
        "a == 1)",
        """
this parenthesis closes none
a == 1)
      ^""",
    ),
    (
        "status in 500",
        """
expected ( after in: FIELD in (VALUE, VALUE)
status in 500
          ^^^""",
    ),
    (
        "status in (500 503)",
        """
expected , or ) in the list
status in (500 503)
               ^^^""",
    ),
    (
        "user == ann smith",
        """
expected and, or or the end; put a text with spaces in quotes
user == ann smith
            ^^^^^""",
    ),
    (
        'user == "ann',
        """
this quote is not closed; expected "
user == "ann
        ^""",
    ),
    (
        r'file == "C:\data"',
        r"""
unknown escape; expected one of \" \' \\ \/ \b \f \n \r \t \u0041 (a backslash itself is \\)
file == "C:\data"
           ^^""",
    ),
    (
        "a == 1 && b == 2",
        """
write and
a == 1 && b == 2
       ^^""",
    ),
    (
        "a=1 || b=2",
        """
write or
a=1 || b=2
    ^^""",
    ),
    (
        "!a",
        """
write not
!a
^""",
    ),
    (
        "500 == status",
        """
expected a field, then an operator and a value; a field of this name is written "500"
500 == status
^^^""",
    ),
    (
        "and == 1",
        """
expected a condition, such as level >= warning; a field of this name is written "and"
and == 1
^^^""",
    ),
    (
        "a == in",
        """
expected a value after ==; this text is written "in"
a == in
     ^^""",
    ),
    (
        "tags[x] == 1",
        """
expected an index such as [0] or [-1], or [*] for any element
tags[x] == 1
    ^""",
    ),
    (
        "a. == 1",
        """
expected a key after the dot
a. == 1
  ^""",
    ),
    (
        "user not ann",
        """
expected in after not: FIELD not in (VALUE, …)
user not ann
         ^^^""",
    ),
    (
        "path == /a?b=c",
        """
expected and, or, ) or the end here; put a value that contains = in quotes
path == /a?b=c
            ^""",
    ),
    (
        "_seq > 5",
        """
_seq is not a field of a record; name streams, or use --after
_seq > 5
^^^^""",
    ),
    (
        "日本 == 1 oder b",
        """
expected and, or or the end
日本 == 1 oder b
          ^^^^""",
    ),
    (
        "a\t=>\x1b[1m 5",
        r"""
=> is not an operator; write >=
a\t=>\x1b[1m 5
   ^^""",
    ),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_a_mistake_is_shown_with_its_place_and_what_is_right(text: str, said: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        parse(text, UTC)
    problem, expression, mark = said.removeprefix("\n").split("\n")
    assert str(raised.value).split("\n") == [problem, f"  {expression}", f"  {mark}"]
    for again in (copy.copy(raised.value), pickle.loads(pickle.dumps(raised.value))):
        assert str(again) == str(raised.value)


def test_of_a_long_expression_the_surroundings_of_the_mistake_are_shown() -> None:
    text = " or ".join(["a == 1"] * 100 + ["a => 1"] + ["a == 1"] * 100)
    with pytest.raises(InvalidFilter) as raised:
        parse(text, UTC)
    _, expression, mark = str(raised.value).split("\n")
    assert len(expression) < 130
    assert expression[mark.index("^") :].startswith("=> 1")


LONG = "x" * 50_000


@pytest.mark.parametrize(
    "text",
    [
        *(f"level >= {LONG}", f"a > {LONG}", f"a > 2026-11-28{LONG}", f"{LONG} b", f"5{LONG} == 1"),
        *(
            f"a {'=' * 50_000} 1",
            f"{LONG}\udcff{LONG}",
            f"a ~ '(?P={LONG})'",
            f"a ~ '(?P<1{LONG}>)'",
        ),
    ],
    ids=range(9),
)
def test_a_mistake_does_not_repeat_all_of_a_long_expression(text: str) -> None:
    with pytest.raises(InvalidFilter) as raised:
        parse(text, UTC)
    assert len(str(raised.value)) < 600
    assert "…" in str(raised.value)


@pytest.mark.parametrize("symbol", ["not ", "("])
def test_nesting_is_bounded(symbol: str) -> None:
    closing = ")" if symbol == "(" else ""
    parse(symbol * NESTING_MAX + "has a" + closing * NESTING_MAX, UTC)
    for depth in (NESTING_MAX + 1, 5000):
        with pytest.raises(InvalidFilter, match="nested too deep"):
            parse(symbol * depth + "has a" + closing * depth, UTC)


def test_the_length_is_bounded() -> None:
    parse("a=" + "x" * (CHARACTERS_MAX - 2), UTC)
    with pytest.raises(InvalidFilter, match="at most 100000"):
        parse("a=" + "x" * (CHARACTERS_MAX - 1), UTC)


A, B, C = (Has((Name(name),)) for name in "abc")


def test_not_binds_more_tightly_than_and_and_that_than_or() -> None:
    assert parse("not has a and has b or has c", UTC) == parse(
        "((not has a) and has b) or has c", UTC
    )
    assert parse("NOT HAS a", UTC) == Not(A)
    assert parse("has a or has b and has c", UTC) != parse("(has a or has b) and has c", UTC)


def test_what_has_a_not_in_it_is_short_for_something() -> None:
    def same(one: str, other: str) -> bool:
        return bool(parse(one, UTC) == parse(other, UTC))

    assert same("a != 1", "has a and not a == 1")
    assert same("a !~ x", "has a and not a ~ x")
    assert same("a not in (1, x)", "has a and not a in (1, x)")


@pytest.mark.parametrize(
    ("text", "record", "holds"),
    [
        # The conditions of the first versions: all after the first = is the value.
        ("message=hello world", '{"message":"hello world"}', True),
        ("message=stop and go", '{"message":"stop and go"}', True),
        ("url=/a?b=c", '{"url":"/a?b=c"}', True),
        ("url=/a?b>=c!", '{"url":"/a?b>=c!"}', True),
        ("a=", '{"a":""}', True),
        ("app.kubernetes.io/name=web", '{"app.kubernetes.io/name":"web"}', True),
        ("5=x", '{"5":"x"}', True),
        ("level=error", '{"level":"ERROR"}', False),
        ("n=5", '{"n":5}', True),
        ("n=5", '{"n":"5"}', True),
        ("n=5", '{"n":5.0}', False),
        ("a={}", '{"a":{}}', False),
        # The same within an expression.
        ("level=error and n=5", '{"level":"error","n":5}', True),
        ("level=error and n=5", '{"level":"error","n":5.0}', False),
        ('user="ann"', '{"user":"ann"}', True),
        ('n="5"', '{"n":5}', False),
        # Odd keys.
        ('"a b" == 1', '{"a b":1}', True),
        ('"a.b" == 1', '{"a":{"b":1}}', False),
        ("a.b == 1", '{"a":{"b":1}}', True),
        ("a.b == 1", '{"a.b":1}', True),
        (r'"q\"q".x == 1', r'{"q\"q":{"x":1}}', True),
        ('"and" == 1 and "in" in (1)', '{"and":1,"in":1}', True),
        # Elements.
        ('tags[*] == "x"', '{"tags":["y","x"]}', True),
        ('tags[] == "x"', '{"tags":["y","x"]}', True),
        ("tags[-1] == x", '{"tags":["y","x"]}', True),
        ("tags == x", '{"tags":["x"]}', False),
        ("tags[*] != x", '{"tags":["y","x"]}', False),
        ("tags[*] != x", '{"tags":[]}', False),
        ("not tags[*] == x", '{"tags":[]}', True),
        ("items[*].id > 5", '{"items":[{"id":1},{"id":7}]}', True),
        ("a[0][1] == 2", '{"a":[[1,2]]}', True),
        # Missing, null, other kinds.
        ("a != 1", "{}", False),
        ("not a == 1", "{}", True),
        ("has a", '{"a":null}', True),
        ("a == null", '{"a":null}', True),
        ("a == null", "{}", False),
        ("a != 1", '{"a":null}', True),
        ("a == 1", '{"a":true}', False),
        ("a > 1", '{"a":"x"}', False),
        ("not a > 1", '{"a":"x"}', False),
        ("not a > 1", "{}", False),
        ("a > 1 or has b", '{"b":1}', True),
        ("not (a > 1 and has b)", '{"a":"x"}', True),
        ('a == "500"', '{"a":500}', False),
        ("a == 500", '{"a":"500"}', True),
        ("a == 500", '{"a":5e2}', True),
        ("a == 10000000000000000000001", '{"a":10000000000000000000001}', True),
        ("a == 10000000000000000000001", '{"a":10000000000000000000000}', False),
        ('a > "m"', '{"a":"n"}', True),
        ("a ~ '^5'", '{"a":503}', True),
        ("a ~ '^5'", '{"a":[5]}', False),
        (r'a ~ "\d\.\d"', '{"a":"v1.2"}', True),
        (r'a == "\ud83d\ude00\u00e9"', '{"a":"😀é"}', True),
        # Units.
        ("took > 250ms", '{"took":0.3}', True),
        ("took_ms > 250ms", '{"took_ms":300}', True),
        ("tookMs == 0.3s", '{"tookMs":300}', True),
        ("took > 250ms", '{"took":"1m0.2s"}', True),
        ("took > 250ms", '{"took":"350µs"}', False),
        ("size > 10MiB", '{"size":"11mib"}', True),
        ("size_kb >= 1MB", '{"size_kb":1000}', True),
        ("size > 10MiB", '{"size":10485761}', True),
        ("time > 2026-11-20T14:00", '{"time":"2026-11-20 14:00:00,001"}', True),
        ("time == 2026-11-20T14:00Z", '{"time":"2026-11-20T15:00:00+01:00"}', True),
        ("time > 2026-11-20T14:00Z", '{"time":1763900000000}', False),
        ("time > 2025-11-20T14:00Z", '{"time":1763900000.5}', True),
        ("_ts < 2026-11-20", '{"_ts":"2026-11-19T23:59:59.999999Z"}', True),
    ],
)
def test_an_expression_holds_for_a_record(text: str, record: str, holds: Any) -> None:
    assert Where(text, zone=UTC).holds(record.encode()) is holds


@pytest.mark.parametrize(
    ("field", "value", "rank"),
    [
        *(
            ("level", name, "warning")
            for name in ('"warning"', '"WARN"', '"wrn"', "4", "40", '"4"')
        ),
        *(("level", name, "error") for name in ('"error"', '"ERR"', '"SEVERE"', "3", "50", "59")),
        *(("level", name, "critical") for name in ('"fatal"', '"Critical"', "2", "60")),
        ("levelno", "40", "error"),
        ("levelno", "35", "warning"),
        ("levelname", '"CRITICAL"', "critical"),
        ("PRIORITY", '"3"', "error"),
        ("PRIORITY", '"7"', "debug"),
        ("severity", "0", "emergency"),
        ("severity", '"Notice"', "notice"),
        ("severity_number", "17", "error"),
        ("log.level", '"info"', "info"),
        ("lvl", '"panic"', "emergency"),
    ],
)
def test_a_level_is_known_by_its_names_and_its_numbers(field: str, value: str, rank: str) -> None:
    line = f'{{"{field}":{value}}}'.encode()
    assert Where(f"{field} == {rank}").holds(line)
    assert Where(f'{field} <= "{rank.upper()}" and {field} >= {rank}').holds(line)
    assert not Where(f"{field} < {rank} or {field} > {rank} or {field} != {rank}").holds(line)


@pytest.mark.parametrize(
    "value", ['"custom"', "8", "100", "-1", "null", '"\u212aey"', "{}", "1e999"]
)
def test_a_level_that_is_not_known_has_no_order(value: str) -> None:
    line = f'{{"level":{value}}}'.encode()
    assert not Where("level >= trace").holds(line)
    assert not Where("not level >= trace").holds(line)
    assert Where("level != trace").holds(line)


def test_a_number_is_compared_with_a_level_as_it_is() -> None:
    assert Where("level >= 40").holds(b'{"level":40}')
    assert not Where("level >= 40").holds(b'{"level":"error"}')


def test_deep_and_strange_records_of_earlier_versions_are_searched() -> None:
    deep = b'{"a":' + b"[" * 3000 + b"]" * 3000 + b',"level":"error","t":["\\ud800","x"]}'
    assert Where("level >= error").holds(deep)
    assert Where("t[1] == x").holds(deep)
    assert not Where("a[0][0] == 1").holds(deep)


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b'{"a":1', b'{"a":1}}', b'{"a":1}x', b"\xff"])
def test_no_expression_holds_for_what_is_not_a_record(line: bytes) -> None:
    for text in ("not has a", "not a == 1", "not 'q\"' == 1", "a == 1"):
        assert not Where(text).holds(line)


def test_expressions_are_values() -> None:
    expression: Expression = parse("level >= warning and not a in (1, 2)", UTC)
    assert hash(expression) == hash(parse("level >= warning and not a in (1, 2)", UTC))
