"""Shrinks a failing scenario: fewer senders, faults, events and bursts.

Removing a part may change when everything else happens, so each smaller scenario is run, and
kept if it breaks the same promise.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.oracle import Violation
from tests.simulation.scenario import Scenario

_perf_counter = time.perf_counter
_PARTS = ("senders", "events", "faults", "spaces")
Fails = Callable[[Scenario], Violation | None]


@dataclass(frozen=True)
class Kept:
    """What is kept of a seed's scenario: indices of its parts, and bursts per sender."""

    senders: tuple[int, ...]
    events: tuple[int, ...]
    faults: tuple[int, ...]
    spaces: tuple[int, ...]
    bursts: int

    @classmethod
    def all_of(cls, scenario: Scenario) -> "Kept":
        """Everything."""
        places: Any = {part: tuple(range(len(getattr(scenario, part)))) for part in _PARTS}
        bursts = max((len(sender.bursts) for sender in scenario.senders), default=0)
        return cls(**places, bursts=bursts)

    @classmethod
    def parse(cls, text: str) -> "Kept":
        """Parses the output of `str`."""
        said = json.loads(text)
        return cls(**{part: tuple(said[part]) for part in _PARTS}, bursts=said["bursts"])

    def __str__(self) -> str:
        return json.dumps(vars(self), separators=(",", ":"))

    def of(self, scenario: Scenario) -> Scenario:
        """The kept part of a scenario."""
        changes: dict[str, Any] = {
            part: tuple(getattr(scenario, part)[at] for at in getattr(self, part))
            for part in _PARTS
        }
        changes["senders"] = tuple(
            replace(sender, bursts=sender.bursts[: self.bursts]) for sender in changes["senders"]
        )
        return replace(scenario, **changes)

    @property
    def size(self) -> int:
        """The number of kept parts."""
        return sum(len(getattr(self, part)) for part in _PARTS) + self.bursts


def shrink(scenario: Scenario, rule: str, fails: Fails, seconds: float) -> Kept:
    """The smallest one found within `seconds` that still breaks `rule`."""
    until = _perf_counter() + seconds
    kept = Kept.all_of(scenario)

    def is_enough(smaller: Kept) -> bool:
        violation = fails(smaller.of(scenario))
        return violation is not None and violation.rule == rule

    while _perf_counter() < until:
        before = kept
        for part in _PARTS:
            kept = _with_fewer(kept, part, is_enough, until)
        kept = _with_fewer_bursts(kept, is_enough, until)
        if kept == before:
            break
    return kept


def _with_fewer(kept: Kept, part: str, is_enough: Callable[[Kept], bool], until: float) -> Kept:
    chunk = max(1, len(getattr(kept, part)) // 2)
    while True:
        at = 0
        while at < len(places := getattr(kept, part)) and _perf_counter() < until:
            fewer: Any = {part: _without(places, at, chunk)}
            smaller = replace(kept, **fewer)
            if is_enough(smaller):
                kept = smaller
            else:
                at += chunk
        if chunk == 1:
            return kept
        chunk //= 2


def _without(places: Sequence[int], at: int, count: int) -> tuple[int, ...]:
    return (*places[:at], *places[at + count :])


def _with_fewer_bursts(kept: Kept, is_enough: Callable[[Kept], bool], until: float) -> Kept:
    step = kept.bursts // 2
    while step and _perf_counter() < until:
        smaller = replace(kept, bursts=kept.bursts - step)
        if smaller.bursts > 0 and is_enough(smaller):
            kept = smaller
        else:
            step //= 2
    return kept
