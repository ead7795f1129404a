"""Random expressions against a definition of their own: each record taken alone, as Python has it.

`Reference` decides an expression by the rules of `docs/filter.md`, on decoded records, with none of
the engine's code. The campaign draws 10,000 expressions, or as many as `LANGUAGE_EXAMPLES` says.
"""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logengine.filtering.evaluation import Evaluation
from logengine.filtering.syntax import parse
from logengine.reading.filter import Filter, Where
from tests.property.test_filter import chosen

EXAMPLES = int(os.environ.get("LANGUAGE_EXAMPLES", "10000"))

RANKS = {
    **dict.fromkeys(["trace", "verbose"], 0),
    **dict.fromkeys(["debug", "dbg"], 1),
    **dict.fromkeys(["info", "information"], 2),
    "notice": 3,
    **dict.fromkeys(["warning", "warn"], 4),
    **dict.fromkeys(["error", "err", "severe"], 5),
    **dict.fromkeys(["critical", "crit", "fatal"], 6),
    "alert": 7,
    **dict.fromkeys(["emergency", "emerg", "panic"], 8),
}
SYSLOG = dict(enumerate([8, 7, 6, 5, 4, 3, 2, 1]))
PINO = {10: 0, 20: 1, 25: 1, 30: 2, 35: 2, 40: 4, 50: 5, 60: 6, 90: 6, 99: 6}
PYTHON = dict.fromkeys(range(1, 10), 0) | {
    10: 1,
    20: 2,
    25: 3,
    30: 4,
    35: 4,
    40: 5,
    50: 6,
    60: 6,
    90: 6,
    99: 6,
}
SCALES = {"level": SYSLOG | PINO, "PRIORITY": SYSLOG, "levelno": PYTHON}
NUMBERS_OF_LEVELS = [0, 3, 4, 6, 7, 8, 10, 20, 25, 30, 35, 40, 50, 60, 99, 100, -1]

TEXTS = [
    *("", "a", "b", "ab", "/health", "/health/x", "a b", 'q"q', "é", "b\\c", "1", "500", "1.0"),
    *("-0", "0.5", "5e2", "true", "null", "250ms", "1m30s", "0.25s", "10MiB", "1.5KiB", "512B"),
    *("2026-11-20T14:00:00Z", "2026-11-20 15:00:00,500+01:00", "2026-11-20", "error", "WARN"),
    *("Information", "crit", "6", "40", "custom", "\u212aey", "aaaaéé", "2026-99-99"),
]
NUMBERS = ["0", "-0", "1", "1.0", "500", "5e2", "5.0E+2", "503", "0.25", "90", "10485760", "-1.5"]
WHOLE = [1, 0, 500, 503, 40, 6, 250, 1763647200, 1763647200000, 10**30]


class Written(float):
    """A number as it is written, which `json` keeps in its `repr`."""

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.text = text  # type: ignore[attr-defined]
        return made

    def __repr__(self) -> str:
        text: str = self.text  # type: ignore[attr-defined]
        return text


def json_of(value: Any, *, ascii_only: bool, spaces: bool, slashes: bool) -> str:
    """The JSON of a record, with numbers as they are written."""
    if isinstance(value, dict):
        colon, comma = (" : ", " , ") if spaces else (":", ",")
        members = (
            json_of(key, ascii_only=ascii_only, spaces=spaces, slashes=slashes)
            + colon
            + json_of(each, ascii_only=ascii_only, spaces=spaces, slashes=slashes)
            for key, each in value.items()
        )
        return "{" + comma.join(members) + "}"
    if isinstance(value, list):
        items = (
            json_of(each, ascii_only=ascii_only, spaces=spaces, slashes=slashes) for each in value
        )
        return "[" + ",".join(items) + "]"
    if isinstance(value, Written):
        return repr(value)
    text = json.dumps(value, ensure_ascii=ascii_only)
    return text.replace("/", "\\/") if slashes else text


# ----------------------------------------------------------------------------- what is drawn

scalars = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS).map(Written),
    st.sampled_from(WHOLE),
    st.sampled_from(NUMBERS_OF_LEVELS),
    st.booleans(),
    st.none(),
)
KEYS = [
    "a",
    "b",
    "a.b",
    "level",
    "PRIORITY",
    "levelno",
    "took_ms",
    "size",
    "time",
    "é",
    "x/y",
    'q"',
]
values = st.recursive(
    scalars,
    lambda inner: (
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=3) | st.lists(inner, max_size=3)
    ),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)

# A path as (text, steps): steps are bare or quoted names, an index, or None for each element.
names = st.sampled_from(["a", "b", "level", "PRIORITY", "levelno", "took_ms", "size", "time", "é"])
bare_names = names.map(lambda name: (name, ("bare", name)))
quoted_names = st.sampled_from(KEYS).map(lambda name: (json.dumps(name), ("quoted", name)))
steps_after = st.one_of(
    bare_names.map(lambda step: ("." + step[0], step[1])),
    quoted_names.map(lambda step: ("." + step[0], step[1])),
    st.sampled_from(
        [("[0]", ("index", 0)), ("[-1]", ("index", -1)), ("[*]", ("each", 0)), ("[]", ("each", 0))]
    ),
)
paths = st.builds(
    lambda first, more: (first[0] + "".join(t for t, _ in more), [first[1], *(s for _, s in more)]),
    bare_names | quoted_names,
    st.one_of(st.just([]), st.lists(steps_after, max_size=2)),
)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# A literal as (text, kind, meaning).
texts_quoted = st.sampled_from(TEXTS).map(lambda text: (quoted(text), "quoted", text))
words = st.sampled_from(["a", "ab", "/health", "é", "error", "custom"]).map(
    lambda text: (text, "word", text)
)
numbers = st.sampled_from([*NUMBERS, "40", "6", "30"]).map(
    lambda text: (text, "number", Fraction(text))
)
durations = st.sampled_from(
    [("250ms", Fraction(1, 4)), ("1m30s", Fraction(90)), ("0.25s", Fraction(1, 4))]
).map(lambda each: (each[0], "duration", each[1]))
sizes = st.sampled_from([("10MiB", 10 * 2**20), ("1.5KiB", 1536), ("512B", 512)]).map(
    lambda each: (each[0], "size", Fraction(each[1]))
)
times = st.sampled_from(
    [
        ("2026-11-20T14:00:00Z", datetime(2026, 11, 20, 14, tzinfo=UTC)),
        ("2026-11-20T15:00+01:00", datetime(2026, 11, 20, 14, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
    ]
).map(lambda each: (each[0], "time", each[1]))
constants = st.sampled_from(["true", "false", "null"]).map(
    lambda text: (text, "constant", json.loads(text))
)
level_names = st.sampled_from(["warning", "WARN", "error", "info", "fatal", "emerg", "debug"]).map(
    lambda text: (text, "word", text)
)
patterns = st.sampled_from(
    ["^/health", "a+", "b$", "^5", "error|crit", "(?i)ERR", r"\d+ms", "é", "", "aaaaé?", r"b\\c"]
)
literals = st.one_of(texts_quoted, words, numbers, durations, sizes, times, constants)
ordered = st.one_of(texts_quoted, numbers, durations, sizes, times)
ORDERS = ["<", "<=", ">", ">="]
LEVEL_FIELDS = ("level", "PRIORITY", "levelno")


def last_name(steps: list[tuple[str, Any]]) -> str:
    return next(str(name) for kind, name in reversed(steps) if kind in ("bare", "quoted"))


@st.composite
def comparisons(draw: Any) -> tuple[str, Any]:
    path, steps = draw(paths)
    is_level = last_name(steps) in LEVEL_FIELDS
    kind = draw(st.sampled_from(["equal", "order", "order", "match", "in", "has", "level"]))
    if kind == "has":
        return f"has {path}", ("has", steps)
    if kind == "match":
        pattern, symbol = draw(patterns), draw(st.sampled_from(["~", "!~"]))
        return f'{path} {symbol} "{pattern}"', ("compare", symbol, steps, ("", "pattern", pattern))
    if kind == "in":
        listed = draw(st.lists(literals, min_size=1, max_size=3))
        word = draw(st.sampled_from(["in", "not in"]))
        return f"{path} {word} ({', '.join(each[0] for each in listed)})", (word, steps, listed)
    if kind == "level" or (kind == "order" and is_level):
        name = draw(st.sampled_from(LEVEL_FIELDS))
        path, steps = draw(
            st.sampled_from(
                [
                    (name, [("bare", name)]),
                    (f"a.{name}", [("bare", "a"), ("bare", name)]),
                    (f"{name}[*]", [("bare", name), ("each", 0)]),
                ]
            )
        )
        symbol = draw(st.sampled_from([*ORDERS, "==", "!="]))
        literal = draw(st.one_of(level_names, numbers))
        return f"{path} {symbol} {literal[0]}", ("compare", symbol, steps, literal)
    symbol = draw(st.sampled_from(ORDERS if kind == "order" else ["=", "==", "!="]))
    literal = draw(ordered if kind == "order" else literals)
    space = draw(st.sampled_from(["", " "])) if literal[0] and symbol != "=" else " "
    return f"{path}{space}{symbol}{space}{literal[0]}", ("compare", symbol, steps, literal)


expressions = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda each: (f"not ({each[0]})", ("not", each[1]))),
        st.tuples(inner, inner).map(
            lambda each: (f"({each[0][0]}) and ({each[1][0]})", ("and", each[0][1], each[1][1]))
        ),
        st.tuples(inner, inner).map(
            lambda each: (f"({each[0][0]} or {each[1][0]})", ("or", each[0][1], each[1][1]))
        ),
    ),
    max_leaves=5,
)


MATCHED = ["/health", "b", "5", "ERR", "250ms", "aaaaé", "é", "b\\c", "critical"]


def leaves(tree: Any) -> Iterator[tuple[list[tuple[str, Any]], list[tuple[str, str, Any]]]]:
    """The paths of an expression, each with the literals that it is compared with."""
    match tree:
        case ("not", term):
            yield from leaves(term)
        case ("and" | "or", left, right):
            yield from leaves(left)
            yield from leaves(right)
        case ("has", steps):
            yield steps, []
        case ("in" | "not in", steps, listed):
            yield steps, listed
        case ("compare", _, steps, literal):
            yield steps, [literal]


def close_to(literal: tuple[str, str, Any], steps: list[tuple[str, Any]]) -> st.SearchStrategy[Any]:
    """Values that are equal to a literal, or nearly."""
    text, kind, meaning = literal
    if last_name(steps) in LEVEL_FIELDS and kind == "word":
        names = [name for name in RANKS if RANKS[name] == RANKS.get(text.lower())]
        return st.sampled_from([*names, *map(str.upper, names), *NUMBERS_OF_LEVELS])
    if kind == "pattern":
        return st.sampled_from(MATCHED)
    if kind == "number":
        return st.sampled_from([Written(text), text, Written(f"{re.split('[eE]', text)[0]}E0")])
    if kind == "quoted":
        return st.sampled_from([meaning, meaning, meaning + "a", "~", "!"])
    return st.just(meaning if kind in ("word", "constant") else text)


def inserted(record: Any, steps: list[tuple[str, Any]], value: Any) -> Any:
    """A record or a part of one, with a value put at a path."""
    if not steps:
        return value
    kind, what = steps[0]
    if kind in ("index", "each"):
        items = record if isinstance(record, list) else []
        last = inserted(None, steps[1:], value)
        return [last, *items] if what == 0 else [*items, last]
    members = record if isinstance(record, dict) else {}
    return members | {what: inserted(members.get(what), steps[1:], value)}


@st.composite
def cases(draw: Any) -> tuple[str, Any, list[Any]]:
    """An expression, its tree, and records of which many are close to what it selects."""
    text, tree = draw(expressions)
    drawn = draw(st.lists(records, min_size=1, max_size=4))
    for _ in range(4):
        record = draw(records)
        for steps, compared_with in leaves(tree):
            near = [close_to(each, steps) for each in compared_with]
            value = draw(st.one_of(*near, *near, scalars))
            record = inserted(record, steps, value)
        drawn.append(record)
    return text, tree, drawn


# ----------------------------------------------------------------------------- the definition


def found(value: Any, steps: list[tuple[str, Any]]) -> Iterator[Any]:
    if not steps:
        yield value
        return
    kind, what = steps[0]
    if kind == "each":
        for item in value if isinstance(value, list) else []:
            yield from found(item, steps[1:])
    elif kind == "index":
        if isinstance(value, list) and -len(value) <= what < len(value):
            yield from found(value[what], steps[1:])
    elif isinstance(value, dict):
        if what in value:
            yield from found(value[what], steps[1:])
        key = what
        for at, (following, name) in enumerate(steps[1:], 2):
            if kind != "bare" or following != "bare":
                break
            key = f"{key}.{name}"
            if key in value:
                yield from found(value[key], steps[at:])


def written(value: Any) -> str | None:
    """The text of a string, or a scalar as JSON has it."""
    if isinstance(value, dict | list):
        return None
    return value if isinstance(value, str) else json_of(value, ascii_only=False, **PLAIN)


PLAIN = {"spaces": False, "slashes": False}
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)


def as_number(value: Any) -> Fraction | None:
    text = written(value)
    if text is None or isinstance(value, bool) or not NUMBER.fullmatch(text):
        return None
    return Fraction(text)


def as_duration(value: Any, name: str) -> Fraction | None:
    if (number := as_number(value)) is not None:
        return number / 1000 if name == "took_ms" else number
    return {"250ms": Fraction(1, 4), "1m30s": Fraction(90), "0.25s": Fraction(1, 4)}.get(
        value if isinstance(value, str) else ""
    )


def as_size(value: Any) -> Fraction | None:
    if (number := as_number(value)) is not None:
        return number
    sizes = {"10MiB": Fraction(10485760), "1.5KiB": Fraction(1536), "512B": Fraction(512)}
    return sizes.get(value if isinstance(value, str) else "")


def as_time(value: Any) -> datetime | None:
    if (number := as_number(value)) is not None:
        if not 0 <= number < 10**20:
            return None
        unit = next(10**d for d in (9, 6, 3, 0) if number >= (10 ** (8 + d) if d else 0))
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
            microseconds=int(number / unit * 1_000_000)
        )
    return {
        "2026-11-20T14:00:00Z": datetime(2026, 11, 20, 14, tzinfo=UTC),
        "2026-11-20T15:00+01:00": datetime(2026, 11, 20, 14, tzinfo=UTC),
        "2026-11-20 15:00:00,500+01:00": datetime(2026, 11, 20, 14, 0, 0, 500_000, tzinfo=UTC),
        "2026-11-20": datetime(2026, 11, 20, tzinfo=UTC),
    }.get(value if isinstance(value, str) else "")


def as_level(value: Any, name: str) -> int | None:
    number = as_number(value)
    if number is not None:
        return SCALES[name].get(int(number)) if number >= 0 else None
    return RANKS.get(value.lower()) if isinstance(value, str) and value.isascii() else None


def compared(  # noqa: PLR0911 - one for each kind of comparison
    value: Any, symbol: str, name: str, literal: tuple[str, str, Any]
) -> bool | None:
    text, kind, meaning = literal
    if symbol == "~":
        shown = written(value)
        return shown is not None and bool(re.search(meaning, shown))
    if symbol == "=":
        if isinstance(value, str):
            return bool(value == (meaning if kind == "quoted" else text))
        return kind != "quoted" and written(value) == text
    expected: Any = meaning
    actual: Any
    if name in LEVEL_FIELDS and kind in ("word", "quoted") and text.strip('"').lower() in RANKS:
        actual, expected = as_level(value, name), RANKS[text.strip('"').lower()]
    elif kind in ("word", "quoted"):
        actual = value if isinstance(value, str) else None
    elif kind == "constant":
        return value is meaning
    else:
        actual = {
            "number": as_number,
            "duration": lambda value: as_duration(value, name),
            "size": as_size,
            "time": as_time,
        }[kind](value)
    if symbol == "==":
        return bool(actual == expected)
    if actual is None:
        return None
    return bool(
        {
            "<": actual < expected,
            "<=": actual <= expected,
            ">": actual > expected,
            ">=": actual >= expected,
        }[symbol]
    )


def decided(record: Any, tree: Any) -> bool | None:  # noqa: PLR0911 - one for each node
    match tree:
        case ("not", term):
            holds = decided(record, term)
            return None if holds is None else not holds
        case ("and" | "or" as word, left, right):
            both = [decided(record, left), decided(record, right)]
            decisive = bool(word == "or")
            if decisive in both:
                return decisive
            return None if None in both else not decisive
        case ("has", steps):
            return any(True for _ in found(record, steps))
        case ("in" | "not in" as word, steps, listed):
            name = last_name(steps)
            all_found = list(found(record, steps))
            is_in = any(compared(v, "==", name, each) for v in all_found for each in listed)
            return is_in if word == "in" else bool(all_found) and not is_in
        case ("compare", symbol, steps, literal):
            name = last_name(steps)
            all_found = list(found(record, steps))
            if symbol in ("!=", "!~"):
                positive = {"!=": "==", "!~": "~"}[symbol]
                return bool(all_found) and not any(
                    compared(value, positive, name, literal) for value in all_found
                )
            results = [compared(value, symbol, name, literal) for value in all_found]
            if True in results:
                return True
            return None if None in results or (symbol in ORDERS and not results) else False
    raise AssertionError(tree)


def check(case: tuple[str, Any, list[Any]], ascii_only: bool, spaces: bool, slashes: bool) -> None:
    text, tree, drawn = case
    lines = [
        json_of(each, ascii_only=ascii_only, spaces=spaces, slashes=slashes).encode()
        for each in drawn
    ]
    expected = [
        line for each, line in zip(drawn, lines, strict=True) if decided(each, tree) is True
    ]
    evaluation = Evaluation(parse(text, UTC), UTC)
    assert [line for line in lines if evaluation.holds(line)] == expected
    assert chosen(Filter((), [Where(text, zone=UTC)]), lines) == expected


@pytest.mark.parametrize("symbol", ORDERS)
def test_the_order_of_texts_needs_no_text_in_common(symbol: str) -> None:
    literal = ('"mallory"', "quoted", "mallory")
    tree = ("compare", symbol, [("bare", "a")], literal)
    drawn = [{"a": "ann"}, {"a": "zoe"}, {"a": "mallory"}, {"b": "mallory"}, {"a": 5}]
    check((f'a {symbol} "mallory"', tree, drawn), ascii_only=True, spaces=False, slashes=False)


@given(cases(), st.booleans(), st.booleans(), st.booleans())
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_an_expression_selects_what_its_definition_selects(
    case: tuple[str, Any, list[Any]], ascii_only: bool, spaces: bool, slashes: bool
) -> None:
    check(case, ascii_only, spaces, slashes)


@pytest.mark.campaign
@given(cases(), st.booleans(), st.booleans(), st.booleans())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_ten_thousand_expressions_select_what_their_definition_selects(
    case: tuple[str, Any, list[Any]], ascii_only: bool, spaces: bool, slashes: bool
) -> None:
    check(case, ascii_only, spaces, slashes)
