"""An expression as a tree, of as few kinds of nodes as the language's meaning needs.

`a != 1` is `has a and not a == 1`, and so are `!~` and `not in`; `a in (1, 2)` is
`a == 1 or a == 2`. So these have no nodes of their own.
"""

from dataclasses import dataclass
from typing import Literal as Choice

from logengine.filtering.literals import Literal

Operator = Choice["=", "==", "<", "<=", ">", ">=", "~"]


@dataclass(frozen=True)
class Name:
    """A step into an object: to the value of this key.

    Adjacent names that are not quoted may also be one key with dots: `a.b` is the key `a.b` too.
    """

    text: str
    is_quoted: bool = False


@dataclass(frozen=True)
class Index:
    """A step into an array: to the element at this index; -1 is the last one."""

    index: int


@dataclass(frozen=True)
class Each:
    """A step into an array: to each of its elements."""


Step = Name | Index | Each
Path = tuple[Step, ...]  # begins with a name


@dataclass(frozen=True)
class Comparison:
    """Holds if one of the values at `path` compares so with `literal`."""

    path: Path
    operator: Operator
    literal: Literal


@dataclass(frozen=True)
class Has:
    """Holds if there is a value at `path`, even `null`."""

    path: Path


@dataclass(frozen=True)
class Not:
    """Holds if `term` does not; is undecided if `term` is."""

    term: "Expression"


@dataclass(frozen=True)
class All:
    """Holds if all terms hold; an undecided one counts unless another does not hold."""

    terms: tuple["Expression", ...]


@dataclass(frozen=True)
class Any:
    """Holds if one of the terms holds; an undecided one counts unless another holds."""

    terms: tuple["Expression", ...]


Expression = Comparison | Has | Not | All | Any


def last_name(path: Path) -> str:
    """Returns the last key on the way to a value: of `a.b[0]` it is `b`."""
    return next(step.text for step in reversed(path) if isinstance(step, Name))


def paths_of(expression: Expression) -> set[Path]:
    """Returns the paths of all fields that an expression names."""
    match expression:
        case Comparison(path=path) | Has(path=path):
            return {path}
        case Not(term=term):
            return paths_of(term)
        case All(terms=terms) | Any(terms=terms):
            return set().union(*map(paths_of, terms))
