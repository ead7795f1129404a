r"""Finds the lines of a whole body that an expression may hold for, without decoding them.

A search names bytes and patterns. Every line that the expression holds for contains one of them.
Which ones, from the rarest to the most frequent:

| rank | the line contains | for |
|---|---|---|
| `RARE_TEXT` | a text of the value | `=` and `==` with a text, `~` with a required literal |
| `KEY_AND_VALUE` | the key and the start of its value | levels, whole numbers, texts; `in` |
| `KEY` | the key | all others, without `not` before them |

JSON may write any character as `\u0041`, so a line that contains `\u` is always examined. So is one
with `\/`, if a slash is searched for. No I/O.
"""

import re

from logengine.filtering.comparison import holds_for_rank, rank_compared
from logengine.filtering.levels import LEVELS, NUMBERS_STOP, names_of_ranks, rank_of_number
from logengine.filtering.tree import All, Any, Comparison, Expression, Has, Name, Path, last_name
from logengine.reading.required_literal import required_literal
from logengine.reading.search import ALL_LINES, KEY, KEY_AND_VALUE, RARE_TEXT, Search

# Characters that JSON encodes as a backslash and one letter, all but the slash, which few encode.
_ESCAPED_SHORTLY = re.compile(r'["\\\x00-\x1f]')
# A shorter text is probably in most lines.
_RARE_BYTES_MIN = 4
# Looking for each of more things takes longer than examining each line.
_SOUGHT_MAX = 8
_VALUES_MAX = 64


def search_for(expression: Expression) -> Search:
    """Returns the search that finds all lines for which an expression holds, and others."""
    found = _search(expression)
    if found is ALL_LINES:
        return found
    escapes = [b"\\u"]
    if any(b"/" in each for each in (*found.literals, *found.patterns)):
        escapes.append(b"\\/")
    return Search((*found.literals, *escapes), found.patterns, rank=found.rank)


def _search(expression: Expression) -> Search:
    match expression:
        case Comparison():
            return _comparison(expression)
        case Has(path=path):
            return _presence(path)
        case All(terms=terms):
            return min(map(_search, terms), key=lambda each: each.order)
        case Any(terms=terms):
            return _any(terms)
        case _:
            return ALL_LINES


def _comparison(comparison: Comparison) -> Search:
    rare = _rare_literal(comparison)
    if len(rare) >= _RARE_BYTES_MIN:
        return Search((rare,), rank=RARE_TEXT)
    return _of_values([comparison]) or _presence(comparison.path)


def _any(terms: tuple[Expression, ...]) -> Search:
    comparisons = [term for term in terms if isinstance(term, Comparison)]
    if len(comparisons) == len(terms) and (keyed := _of_values(comparisons)):
        return keyed
    searches = [_search(term) for term in terms]
    literals = tuple({literal for each in searches for literal in each.literals})
    patterns = tuple({pattern for each in searches for pattern in each.patterns})
    if ALL_LINES in searches or len(literals) + len(patterns) > _SOUGHT_MAX:
        return ALL_LINES
    return Search(literals, patterns, rank=max(each.rank for each in searches))


def _rare_literal(comparison: Comparison) -> bytes:
    """Returns a text that is in every line for which the comparison holds; may be empty."""
    text = comparison.literal.text
    if comparison.operator == "~":
        # It is a pattern of characters, and the literal of one of bytes is cut between bytes.
        text = required_literal(text.encode()).decode() if text.isascii() else ""
    elif comparison.operator not in ("=", "=="):
        return b""  # what comes before a text, or after it, does not contain it
    elif comparison.literal.kind != "text" or rank_compared(comparison) is not None:
        return b""
    return max(_ESCAPED_SHORTLY.split(text), key=len).encode()


def _presence(path: Path) -> Search:
    key = _key(path)
    if not key:
        # A part of the name is in the line in any case.
        key = max(_ESCAPED_SHORTLY.split(last_name(path)), key=len).encode()
    return Search((key,), rank=KEY) if key else ALL_LINES


def _key(path: Path) -> bytes:
    """Returns the end of the last key on a path, as it is in a line; empty if it has escapes."""
    name = last_name(path)
    if _ESCAPED_SHORTLY.search(name):
        return b""
    # In front of a nested name may be a quote, or a key with dots.
    return b'%s%s"' % (b'"' if len(path) == 1 else b"", name.encode())


def _of_values(comparisons: list[Comparison]) -> Search | None:
    """Returns the search for one key followed by one of several values; None if there is none."""
    path = comparisons[0].path
    key = _key(path)
    if len(comparisons) > _VALUES_MAX or not key or not isinstance(path[-1], Name):
        return None
    values = []
    for comparison in comparisons:
        value = _value(comparison)
        if comparison.path != path or not value:
            return None
        values.append(value)
    pattern = rb"%s[ \t\r]*+:[ \t\r]*+(?:%s)" % (re.escape(key), b"|".join(values))
    return Search((), (pattern,), rank=KEY_AND_VALUE)


def _value(comparison: Comparison) -> bytes:
    """Returns a pattern for how the JSON of each value begins that the comparison holds for."""
    literal = comparison.literal
    if comparison.operator not in ("=", "==") and rank_compared(comparison) is None:
        return b""
    if rank_compared(comparison) is not None:
        return _level(comparison)
    if comparison.operator == "=" or literal.kind == "text":
        start = _ESCAPED_SHORTLY.split(literal.text)[0]
        return rb'"?' + re.escape(start.encode())
    if literal.kind == "constant":
        return literal.text.lower().encode()
    if literal.kind == "number" and (digits := re.fullmatch(r"-?[0-9]+", literal.text)):
        # Equal numbers have the same digits, unless one has an exponent. Zero may be negative.
        number = digits[0] if literal.value else "-?0"
        return rb'"?(?:%s(?![0-9])|-?[0-9.]+[eE])' % number.encode()
    return b""


def _level(comparison: Comparison) -> bytes:
    field = last_name(comparison.path)
    ranks = {rank for rank in range(len(LEVELS)) if holds_for_rank(comparison, rank)}
    numbers = [n for n in range(NUMBERS_STOP) if rank_of_number(n, field) in ranks]
    names = names_of_ranks(ranks)
    values = [rb'"?-?[0-9.]+[eE]', *([rb'"?-?0'] if 0 in numbers else [])]
    first = "".join(sorted({name[0] + name[0].upper() for name in names}))
    if names:
        values.append(f'"(?i:{"|".join(names)})"'.encode())
    by_tens: dict[str, str] = {}
    for number in numbers:
        by_tens[str(number)[:-1]] = by_tens.get(str(number)[:-1], "") + str(number)[-1]
    values += [f'"?{tens}[{units}](?![0-9])'.encode() for tens, units in by_tens.items()]
    # Most lines have another level, and its first letter is enough to see that.
    return rb'(?="?[-0-9.%s])(?:%s)' % (first.encode(), b"|".join(values))
