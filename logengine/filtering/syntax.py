"""Parses an expression: text in, a tree out. The grammar is in `docs/filter.md`.

    parse('level >= warning and not path ~ "^/health"', zone)

A text of the form `KEY=VALUE` alone is the condition of the first versions: all that comes after
the first `=` is the value, with spaces and whatever else.
"""

import re
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import NoReturn, cast

from logengine.errors import InvalidFilter
from logengine.filtering.comparison import BadPattern, comparing
from logengine.filtering.literals import Literal, bare, quoted
from logengine.filtering.tree import (
    All,
    Any,
    Comparison,
    Each,
    Expression,
    Has,
    Index,
    Name,
    Not,
    Operator,
    Path,
    Step,
)
from logengine.format.json_object import decode_string
from logengine.printable import excerpt

CHARACTERS_MAX = 100_000
NESTING_MAX = 50

# Not stored: readers add them.
_ADDED_NAMES = ("_stream", "_seq")
_KEYWORDS = ("and", "or", "not", "in", "has")
_OPERATORS = ("=", "==", "!=", "<", "<=", ">", ">=", "~", "!~")
_MEANT = {
    "=>": ">=",
    "=<": "<=",
    "=~": "~",
    "~=": "~",
    "~~": "~",
    "<>": "!=",
    "=!": "!=",
    "~!": "!~",
    "!==": "!=",
    "===": "==",
    "!=~": "!~",
}
_SYMBOLS_MEANT = {"&": "and", "|": "or", "!": "not", "^": "not"}
_ESCAPES = {letter: letter for letter in "\"'\\/"} | {
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_ESCAPES_LISTED = r"\" \' \\ \/ \b \f \n \r \t \u0041 (a backslash itself is \\)"

_SPACE = re.compile(r"\s*")
_QUOTED = re.compile(r""" "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' """, re.VERBOSE | re.DOTALL)
# No half of a surrogate pair: it is not a character.
_ESCAPE = re.compile(
    r"""\\ (?: (?P<pair> u[dD][89ABab][0-9A-Fa-f]{2} \\u[dD][C-Fc-f][0-9A-Fa-f]{2})
             | u(?P<code> (?![dD][89A-Fa-f]) [0-9A-Fa-f]{4})
             | (?P<letter> .) )""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"""[^\s=<>!~()\[\]"',.&|]+""")
_OPERATOR = re.compile(r"[=<>!~]+")
_VALUE = re.compile(r"""[^\s=<>!~()\[\]"',]+""")
_WORD = re.compile(r"[A-Za-z]+(?![^\s=<>!~()\[\]\"',])")
# What a name in quotes has only with a backslash before it, or as its code.
_QUOTED_APART = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_INDEX = re.compile(r"\[\s*(-?[0-9]{1,9}|\*|)\s*\]")
_SYMBOL = re.compile(r"&+|\|+|!(?![=~])")

_KEY = r"""[^\s=<>!~()\[\]"']+"""
_PLAIN = re.compile(rf"""({_KEY})=([^\s=<>!~"'].*|)""", re.DOTALL)
# In a value, this is where the next condition begins, so the whole is not one condition.
_NEXT_CONDITION = re.compile(
    rf"""\s(?:and|or|&&|\|\|)\s+
         (?: not\s | has\s | \(
           | (?:{_KEY}|"[^"]*")(?:\[[^\]]*\])*\s*(?:[=<>!~]|(?:not\s+)?in\s*\() )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def parse(text: str, zone: tzinfo) -> Expression:
    """Returns the expression that `text` is; a time without an offset is in `zone`.

    Raises `InvalidFilter`, which shows the place of the mistake and says what is right.
    """
    _check_text(text)
    parser = _Parser(text, zone)
    plain = _PLAIN.fullmatch(text)
    if plain and not _NEXT_CONDITION.search(plain[2]):
        path = tuple(Name(each) for each in plain[1].split("."))
        parser.check_field(path, 0, plain.end(1))
        return Comparison(path, "=", Literal("text", plain[2], plain[2]))
    return parser.parsed()


def parse_field(text: str) -> Path:
    """Returns the path of a field that is written as in an expression: `http.status`, `tags[*]`.

    Raises `InvalidFilter` as `parse` does.
    """
    _check_text(text)
    return _Parser(text, UTC).parsed_field()


def field_text(path: Path) -> str:
    """Returns a path as `parse_field` takes it, with quotes where a name needs them."""
    return "".join(
        f"[{step.index}]"
        if isinstance(step, Index)
        else "[*]"
        if isinstance(step, Each)
        else ("." if place else "") + _name_text(step, is_first=not place)
        for place, step in enumerate(path)
    )


def _name_text(name: Name, *, is_first: bool) -> str:
    text = name.text
    is_keyword = is_first and (text.lower() in _KEYWORDS or text[:1] in "-+0123456789")
    if _NAME.fullmatch(text) and not is_keyword and not _QUOTED_APART.search(text):
        return text
    return '"' + _QUOTED_APART.sub(lambda found: _escaped(found[0]), text) + '"'


def _escaped(character: str) -> str:
    return f"\\{character}" if character in '"\\' else f"\\u{ord(character):04x}"


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidFilter(f"{excerpt(text, error.start)!r} is not UTF-8") from None
    if len(text) > CHARACTERS_MAX:
        raise InvalidFilter(
            f"the expression has {len(text)} characters; expected at most {CHARACTERS_MAX}"
        )


class _Parser:
    """A recursive descent through `text`; `_place` is where it continues."""

    def __init__(self, text: str, zone: tzinfo) -> None:
        self._text = text
        self._zone = zone
        self._place = 0
        self._depth = 0

    def parsed(self) -> Expression:
        expression = self._disjunction()
        self._skip_space()
        if self._place < len(self._text):
            self._fail_at_rest(expression)
        return expression

    def parsed_field(self) -> Path:
        path = self._field("expected a field, such as level or http.status")
        if self._skip_space() < len(self._text):
            self._fail("expected the end of the field here", self._place)
        return path

    def _disjunction(self) -> Expression:
        terms = [self._conjunction()]
        while self._takes_word("or"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else Any(tuple(terms))

    def _conjunction(self) -> Expression:
        terms = [self._negation()]
        while self._takes_word("and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else All(tuple(terms))

    def _negation(self) -> Expression:
        start = self._skip_space()
        if self._takes_word("not"):
            self._enter(start)
            term = self._negation()
            self._depth -= 1
            return Not(term)
        if self._takes("("):
            self._enter(start)
            expression = self._disjunction()
            self._depth -= 1
            if not self._takes(")"):
                if self._place < len(self._text):
                    self._fail_at_rest(expression)
                self._fail("this parenthesis is not closed; expected )", start, start + 1)
            return expression
        if self._takes_word("has"):
            return Has(self._field("expected a field after has"))
        return self._comparison()

    def _enter(self, start: int) -> None:
        self._depth += 1
        if self._depth > NESTING_MAX:
            self._fail(f"nested too deep; expected at most {NESTING_MAX} levels", start)

    def _comparison(self) -> Expression:
        path = self._field("expected a condition, such as level >= warning")
        negated = self._takes_word("not")
        if self._takes_word("in"):
            terms = tuple(self._comparison_with(path, "==", value) for value in self._list())
            return _but_present(path, Any(terms)) if negated else Any(terms)
        if negated:
            self._fail("expected in after not: FIELD not in (VALUE, …)", self._skip_space())
        start = self._skip_space()
        found = _OPERATOR.match(self._text, start)
        if not found:
            field = excerpt(self._text[self._field_start : start].strip())
            self._fail_instead_of(
                f"expected an operator after the field {field}: {', '.join(_OPERATORS)} or in; "
                "or has before it",
                start,
            )
        self._place = found.end()
        symbol = found[0]
        if symbol not in _OPERATORS:
            meant = _MEANT.get(symbol)
            advice = f"write {meant}" if meant else f"expected one of {', '.join(_OPERATORS)} or in"
            self._fail(f"{excerpt(symbol)} is not an operator; {advice}", start, found.end())
        operator = cast("Operator", {"!=": "==", "!~": "~"}.get(symbol, symbol))
        comparison = self._comparison_with(path, operator, self._value(symbol))
        return _but_present(path, comparison) if symbol.startswith("!") else comparison

    def _comparison_with(
        self, path: Path, operator: Operator, value: tuple[Literal, int, int]
    ) -> Comparison:
        literal, start, stop = value
        if operator == "~":
            # A pattern has its own escapes: what is between the quotes is the pattern.
            text = self._text[start:stop]
            literal = quoted(text[1:-1] if literal.is_quoted else text)
        comparison = Comparison(path, operator, literal)
        try:
            comparing(comparison, self._zone)
        except BadPattern as error:
            if error.place is not None:
                start = min(start + literal.is_quoted + error.place, stop - 1)
                stop = start + 1
            self._fail(str(error), start, stop)
        except ValueError as error:
            self._fail(str(error), start, stop)
        return comparison

    def _field(self, expected: str) -> Path:
        start = self._field_start = self._skip_space()
        steps: list[Step] = [self._name(expected)]
        while True:
            if self._text.startswith(".", self._place):
                self._place += 1
                steps.append(self._name("expected a key after the dot"))
            elif self._text.startswith("[", self._place):
                steps.append(self._index())
            else:
                break
        path = tuple(steps)
        self.check_field(path, start, self._place)
        return path

    def check_field(self, path: Path, start: int, stop: int) -> None:
        """Raises `InvalidFilter` if `path`, from `start` to `stop`, is not of a record."""
        first = path[0]
        if isinstance(first, Name) and first.text in _ADDED_NAMES:
            self._fail(
                f"{first.text} is not a field of a record; name streams, or use --after",
                start,
                stop,
            )

    def _name(self, expected: str) -> Name:
        start = self._place
        if found := self._quoted():
            return Name(self._unescaped(found), is_quoted=True)
        name = _NAME.match(self._text, start)
        if not name:
            self._fail_instead_of(expected, start)
        is_first = start == self._field_start
        if is_first and name[0].lower() in _KEYWORDS:
            self._fail(
                f'{expected}; a field of this name is written "{name[0]}"', start, name.end()
            )
        if is_first and re.match(r"[-+0-9]", name[0]):
            self._fail(
                f"expected a field, then an operator and a value; a field of this name is "
                f'written "{excerpt(name[0])}"',
                start,
                name.end(),
            )
        self._place = name.end()
        return Name(name[0])

    def _index(self) -> Index | Each:
        found = _INDEX.match(self._text, self._place)
        if not found:
            self._fail("expected an index such as [0] or [-1], or [*] for any element", self._place)
        self._place = found.end()
        return Each() if found[1] in ("", "*") else Index(int(found[1]))

    def _list(self) -> list[tuple[Literal, int, int]]:
        start = self._skip_space()
        if not self._takes("("):
            self._fail("expected ( after in: FIELD in (VALUE, VALUE)", start)
        values = [self._value("(")]
        while self._takes(","):
            values.append(self._value(","))
        if not self._takes(")"):
            self._fail("expected , or ) in the list", self._skip_space())
        return values

    def _value(self, after: str) -> tuple[Literal, int, int]:
        """Parses a value, and returns its meaning, its start and its stop."""
        start = self._skip_space()
        if found := self._quoted():
            is_pattern = after in ("~", "!~")
            literal = quoted("" if is_pattern else self._unescaped(found))
            self._check_end_of_value(start)
            return literal, start, self._place
        word = _VALUE.match(self._text, start)
        expected = f"expected a value after {after}"
        if not word:
            self._fail_instead_of(expected, start)
        if word[0].lower() in _KEYWORDS:
            self._fail(f'{expected}; this text is written "{word[0]}"', start, word.end())
        if symbol := re.search(r"&&|\|\|", word[0]):
            place = start + symbol.start()
            self._fail(
                f"write {_SYMBOLS_MEANT[symbol[0][0]]} with spaces around it, or the value in "
                "quotes",
                place,
                place + 2,
            )
        self._place = word.end()
        self._check_end_of_value(start)
        try:
            return bare(word[0], self._zone), start, word.end()
        except ValueError as error:
            self._fail(str(error), start, word.end())

    def _check_end_of_value(self, start: int) -> None:
        """Fails where a value goes on with what only a value in quotes can contain."""
        stop = self._place
        if stop < len(self._text) and not re.match(r"[\s(),]", self._text[stop]):
            self._fail(
                "expected and, or, ) or the end here; put a value that contains "
                f"{self._text[stop]} in quotes",
                stop,
                stop + 1,
            )

    def _quoted(self) -> re.Match[str] | None:
        """Takes what is in quotes, if quotes come next."""
        start = self._place
        if not self._text.startswith(('"', "'"), start):
            return None
        found = _QUOTED.match(self._text, start)
        if not found:
            self._fail(f"this quote is not closed; expected {self._text[start]}", start, start + 1)
        self._place = found.end()
        return found

    def _unescaped(self, found: re.Match[str]) -> str:
        def one(escape: re.Match[str]) -> str:
            if escape["pair"]:
                return decode_string(f'"{escape[0]}"'.encode())
            if escape["code"]:
                return chr(int(escape["code"], 16))
            if escape["letter"] not in _ESCAPES:
                place = found.start() + 1 + escape.start()
                self._fail(f"unknown escape; expected one of {_ESCAPES_LISTED}", place, place + 2)
            return _ESCAPES[escape["letter"]]

        return _ESCAPE.sub(one, found[0][1:-1])

    def _takes(self, symbol: str) -> bool:
        if not self._text.startswith(symbol, self._skip_space()):
            return False
        self._place += len(symbol)
        return True

    def _takes_word(self, word: str) -> bool:
        found = _WORD.match(self._text, self._skip_space())
        if not found or found[0].lower() != word:
            return False
        # A field of this name is recognized by what follows: `in == 5`.
        self._place = found.end()
        return True

    def _skip_space(self) -> int:
        found = _SPACE.match(self._text, self._place)
        assert found is not None
        self._place = found.end()
        return self._place

    def _fail_at_rest(self, before: Expression) -> NoReturn:
        """Fails at what comes after a complete expression."""
        start = self._place
        symbol = _SYMBOL.match(self._text, start)
        if symbol:
            self._fail(f"write {_SYMBOLS_MEANT[symbol[0][0]]}", start, symbol.end())
        if self._text[start] == ")" and not self._depth:
            self._fail("this parenthesis closes none", start, start + 1)
        advice = ""
        is_text = isinstance(before, Comparison) and before.literal.kind == "text"
        if is_text and re.match(r"[\w'\"]", self._text[start]):
            advice = "; put a text with spaces in quotes"
        self._fail(f"expected and, or{', )' if self._depth else ''} or the end{advice}", start)

    def _fail_instead_of(self, expected: str, start: int) -> NoReturn:
        symbol = _SYMBOL.match(self._text, start)
        if symbol:
            self._fail(f"write {_SYMBOLS_MEANT[symbol[0][0]]}", start, symbol.end())
        self._fail(expected, start)

    def _fail(self, problem: str, start: int, stop: int | None = None) -> NoReturn:
        if stop is None:
            stop = start
            if start < len(self._text):
                word = re.compile(r"\w+|.", re.DOTALL).match(self._text, start)
                assert word is not None
                stop = word.end()
        raise InvalidFilter.at(problem, self._text, start, stop)


def _but_present(path: Path, expression: Expression) -> Expression:
    return All((Has(path), Not(expression)))


def all_of(expressions: Sequence[Expression]) -> Expression:
    """Returns the expression that holds if all of these hold; there is at least one."""
    return expressions[0] if len(expressions) == 1 else All(tuple(expressions))
