"""Decides whether an expression holds for a stored line: compiled once into nested functions.

The three results are those of SQL and of Kleene's logic: True, False, and None for undecided.
Only True selects a record, so `not` never selects one that could not be compared.
"""

from collections.abc import Callable
from datetime import tzinfo
from typing import Any as Anything

from msgspec import UNSET

from logengine.filtering.comparison import comparing
from logengine.filtering.fields import Fields
from logengine.filtering.tree import All, Any, Comparison, Expression, Has, Not, paths_of

Test = Callable[[Anything], bool | None]


class Evaluation:
    """An expression that is ready for lines. Times without an offset are in `zone`.

    `fields` is for lines that are decoded once for several expressions; it must have the paths of
    this one.
    """

    def __init__(self, expression: Expression, zone: tzinfo, fields: Fields | None = None) -> None:
        self._zone = zone
        self._fields = fields or Fields(paths_of(expression))
        self._decode = self._fields.decode
        self._test = self._compiled(expression)

    def holds(self, line: bytes) -> bool:
        """Returns whether the expression holds for the record in a stored line.

        No expression holds for what is not a record.
        """
        return self.holds_for(self._decode(line))

    def holds_for(self, record: Anything) -> bool:
        """Returns the same for what `Fields.decode` returned for the line."""
        return record is not None and self._test(record) is True

    def _compiled(self, expression: Expression) -> Test:
        match expression:
            case Comparison():
                return self._comparison(expression)
            case Has(path=path):
                find = self._fields.finder(path)
                return lambda record: bool(find(record))
            case Not(term=term):
                return _negated(self._compiled(term))
            case All(terms=terms):
                return _first_of(False, [self._compiled(term) for term in terms])
            case Any(terms=terms):
                return _first_of(True, [self._compiled(term) for term in terms])

    def _comparison(self, comparison: Comparison) -> Test:
        compare = comparing(comparison, self._zone)
        # An order needs a value to compare; that no value is equal can always be said.
        none_holds = None if comparison.operator in ("<", "<=", ">", ">=") else False
        if get := self._fields.getter(comparison.path):

            def test_one(record: Anything) -> bool | None:
                value = get(record)
                return none_holds if value is UNSET else compare(bytes(value))

            return test_one
        find = self._fields.finder(comparison.path)

        def test(record: Anything) -> bool | None:
            values = find(record)
            result = False if values else none_holds
            for value in values:
                holds = compare(value)
                if holds:
                    return True
                if holds is None:
                    result = None
            return result

        return test


def _negated(test: Test) -> Test:
    def negated(record: Anything) -> bool | None:
        holds = test(record)
        return None if holds is None else not holds

    return negated


def _first_of(decisive: bool, tests: list[Test]) -> Test:  # noqa: FBT001 - False is `and`
    """Returns `and`, if False is decisive, or `or`, if True is."""

    def combined(record: Anything) -> bool | None:
        result: bool | None = not decisive
        for test in tests:
            holds = test(record)
            if holds is decisive:
                return decisive
            if holds is None:
                result = None
        return result

    return combined
