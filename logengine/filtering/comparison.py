"""Compares a value of a record, as JSON, with a literal of an expression.

A comparison takes the bytes of the value and returns whether it holds: True, False, or None if
that is undecided. Only an order is ever undecided, of a value of another kind than the literal.
"""

import operator
import re
import warnings
from collections.abc import Callable
from datetime import tzinfo
from decimal import Decimal
from typing import Any

from logengine.filtering.levels import (
    LEVEL_NAMES,
    NUMBERS_STOP,
    is_level_field,
    rank_of_name,
    rank_of_number,
)
from logengine.filtering.literals import (
    Kind,
    Literal,
    duration_of,
    in_bytes,
    in_seconds,
    number_of,
    size_of,
    time_of,
    time_of_number,
)
from logengine.filtering.tree import Comparison, last_name
from logengine.format.json_object import decode_string
from logengine.printable import excerpt

Compare = Callable[[bytes], bool | None]

_Order = Callable[[Any, Any], bool]
_ORDERS: dict[str, _Order] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_REMEMBERED_VALUES_MAX = 4096
_REMEMBERED_BYTES_MAX = 64
_PROBLEM_CHARACTERS_MAX = 120


class BadPattern(ValueError):
    """What follows `~` is not a regular expression; `place` is where in it, if known."""

    def __init__(self, problem: str, place: int | None) -> None:
        super().__init__(problem)
        self.place = place


def comparing(comparison: Comparison, zone: tzinfo) -> Compare:
    """Returns the function that compares a value with the literal.

    Times without an offset, in the record too, are in `zone`. Raises `ValueError`, which says
    what is right, for an operator that the literal cannot have.
    """
    return _Remembered(_comparing(comparison, zone)).__getitem__


def rank_compared(comparison: Comparison) -> int | None:
    """Returns the rank of the literal if the comparison is one of levels, else None."""
    if comparison.operator in ("=", "~") or comparison.literal.kind != "text":
        return None
    if not is_level_field(last_name(comparison.path)):
        return None
    return rank_of_name(comparison.literal.text)


def holds_for_rank(comparison: Comparison, rank: int) -> bool:
    """Returns whether a comparison of levels holds for a value of this rank."""
    order: _Order = _ORDERS.get(comparison.operator, operator.eq)
    holds: bool = order(rank, rank_compared(comparison))
    return holds


class _Remembered(dict[bytes, "bool | None"]):
    """The results of a comparison for values that were met: most fields have few different ones."""

    def __init__(self, compare: Compare) -> None:
        super().__init__()
        self._compare = compare

    def __missing__(self, value: bytes) -> bool | None:
        holds = self._compare(value)
        if len(value) <= _REMEMBERED_BYTES_MAX:
            if len(self) >= _REMEMBERED_VALUES_MAX:
                self.clear()
            self[value] = holds
        return holds


def _comparing(comparison: Comparison, zone: tzinfo) -> Compare:
    literal = comparison.literal
    if comparison.operator == "=":
        return _as_written(literal)
    if comparison.operator == "~":
        return _matching(literal)
    order = _ORDERS.get(comparison.operator)
    field = last_name(comparison.path)
    rank = rank_compared(comparison)
    if rank is not None:
        return _compared(lambda value: rank_of(value, field), rank, order)
    if order is not None:
        _check_order(literal, field)
    if literal.kind == "constant":
        return lambda value: value == literal.text.lower().encode()
    return _compared(_reading(literal.kind, field, zone), literal.value, order)


def _check_order(literal: Literal, field: str) -> None:
    if is_level_field(field) and literal.kind != "number":
        raise ValueError(
            f"{excerpt(literal.text)!r} is not a level; expected a number, or one of "
            f"{', '.join(LEVEL_NAMES)}"
        )
    if literal.kind == "constant":
        raise ValueError(f"{literal.text} has no order; compare it with == or !=")
    if literal.kind == "text" and not literal.is_quoted:
        raise ValueError(
            f"{excerpt(literal.text)!r} is not a number, duration, size or time; to compare text "
            "by its characters, put it in quotes"
        )


def _as_written(literal: Literal) -> Compare:
    text = literal.text
    written = None if literal.is_quoted else text.encode()

    def compare(value: bytes) -> bool:
        if value.startswith(b'"'):
            return decode_string(value) == text
        return value == written and not value.startswith((b"{", b"["))

    return compare


def _matching(literal: Literal) -> Compare:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what a pattern may mean in the future
            search = re.compile(literal.text).search
    except re.error as error:
        # It may name a group of the pattern.
        problem = excerpt(error.msg, characters_max=_PROBLEM_CHARACTERS_MAX)
        raise BadPattern(f"this is not a regular expression: {problem}", error.pos) from None
    except (OverflowError, RecursionError) as error:
        raise BadPattern(f"this is not a regular expression: {error}", None) from None

    def compare(value: bytes) -> bool:
        text = _text_of(value)
        return text is not None and search(text) is not None

    return compare


def _compared(
    read: Callable[[bytes], Any],
    expected: Any,
    order: _Order | None,
) -> Compare:
    if order is None:
        return lambda value: read(value) == expected

    def compare(value: bytes) -> bool | None:
        found = read(value)
        return None if found is None else order(found, expected)

    return compare


def _reading(kind: Kind, field: str, zone: tzinfo) -> Callable[[bytes], str | Decimal | None]:
    """Returns the function that reads a value as what the literal is; None if it is not that."""
    # What a plain number means, in JSON or as a text, and any other text.
    of_number: Callable[[Decimal], str | Decimal | None]
    of_text: Callable[[str], str | Decimal | None]
    if kind == "text":
        return lambda value: decode_string(value) if value.startswith(b'"') else None
    if kind == "duration":
        of_number, of_text = lambda number: in_seconds(number, field), duration_of
    elif kind == "size":
        of_number, of_text = lambda number: in_bytes(number, field), size_of
    elif kind == "time":
        of_number, of_text = time_of_number, lambda text: time_of(text, zone)
    else:
        of_number, of_text = lambda number: number, lambda _: None

    def read(value: bytes) -> str | Decimal | None:
        text = _text_of(value)
        if text is None:
            return None
        number = number_of(text)
        return of_text(text) if number is None else of_number(number)

    return read


def rank_of(value: bytes, field: str) -> int | None:
    """Returns the rank of a level in JSON, in a field of this name; None if it is no level."""
    text = _text_of(value)
    if text is None:
        return None
    number = number_of(text)
    if number is None:
        return rank_of_name(text) if value.startswith(b'"') else None
    # Not `int` of any number: it may have an exponent of many digits.
    return rank_of_number(int(number), field) if 0 <= number < NUMBERS_STOP else None


def _text_of(value: bytes) -> str | None:
    """Returns the text of a string, or a number or constant as written; None of a container."""
    if value.startswith(b'"'):
        return decode_string(value)
    return None if value.startswith((b"{", b"[")) else value.decode()
