"""Defines a scenario: something to measure, and its section of the report."""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

import msgspec

from benchmarks import report

F = TypeVar("F", bound=msgspec.Struct)
_FLAT = 1.25  # more than the rounds differ from each other, and far from linear


@dataclass(frozen=True)
class Bench:
    """How thoroughly to measure, and with what."""

    software: Path
    rounds: int
    scale: float
    sustained_rounds: int
    growth_max: int
    everyday_rounds: int
    # Of `everyday`, only these are measured; all of them if none is named.
    rates: Sequence[int] = ()
    connections: Sequence[int] = ()

    def scaled(self, count: int) -> int:
        """Returns `count`, or fewer in a short run."""
        return max(1, int(count * self.scale))

    def each_round(self, what: str, rounds: int = 0) -> Iterator[int]:
        """The numbers of the rounds, each announced on standard error."""
        rounds = rounds or self.rounds
        for round_ in range(rounds):
            say(f"{what}: round {round_ + 1} of {rounds}")
            yield round_


@dataclass(frozen=True)
class Aim:
    """One line of the aims: the work, the target, the measurement, and whether it is met."""

    work: str
    wanted: str
    measured: str
    is_met: bool

    @classmethod
    def at_least(cls, work: str, wanted: float, values: Sequence[float], unit: str = "x") -> Self:
        """The median of the rounds must be at least this."""
        met = statistics.median(values) >= wanted
        return cls(work, f">= {wanted:g}{unit}", _measured(values, unit), met)

    @classmethod
    def at_most(cls, work: str, wanted: float, values: Sequence[float], unit: str = "x") -> Self:
        """The median of the rounds must be at most this."""
        met = statistics.median(values) <= wanted
        return cls(work, f"<= {wanted:g}{unit}", _measured(values, unit), met)

    @classmethod
    def flat(cls, work: str, last: Sequence[float], first: Sequence[float]) -> Self:
        """What costs `first` with the least work must cost about the same with the most."""
        return cls.at_most(f"{work}: flat", _FLAT, report.ratios(last, first))


def _measured(values: Sequence[float], unit: str) -> str:
    return f"{report.median(values)}{unit} ({report.spread(values)})"


@dataclass(frozen=True)
class Section:
    """A scenario's part of the report: Markdown, its aims, and what the README shows of it."""

    text: str
    aims: list[Aim]
    readme: str = ""


@dataclass(frozen=True)
class Scenario(Generic[F]):
    """Measures something, and reports the result.

    The result of `measure` is kept, so `render` can be called again without it. `render`
    writes its plots into the given directory.
    """

    name: str
    title: str
    found: type[F]
    measure: Callable[[Bench], F]
    render: Callable[[F, Path], Section]


def say(text: str) -> None:
    """Prints progress."""
    print(text, file=sys.stderr, flush=True)
