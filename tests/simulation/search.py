"""Runs scenarios one after the other, until time is up or a promise is broken."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.coverage import Coverage
from tests.simulation.oracle import Violation
from tests.simulation.scenario import Scenario
from tests.simulation.world import Counts, World

_perf_counter = time.perf_counter
_SEEDS_APART = 1_000_003


@dataclass
class Found:
    """A scenario that broke a promise."""

    scenario: Scenario
    violation: Violation

    def __str__(self) -> str:
        return f"python -m tests.simulation --replay {self.scenario.seed}: {self.violation}"


@dataclass
class Outcome:
    """The result of many runs."""

    counts: Counts = field(default_factory=Counts)
    coverage: Coverage = field(default_factory=Coverage)
    found: Found | None = None
    took_s: float = 0.0


def run(scenario: Scenario) -> tuple[Violation | None, World]:
    """Runs one scenario; returns the broken promise, if any."""
    world = World(scenario)
    try:
        world.run()
    except Violation as violation:
        return violation, world
    return None, world


def explore(
    seconds: float,
    seed: int,
    *,
    each: Callable[[World], None] = lambda _: None,
    runs: int = 1 << 60,
) -> Outcome:
    """Runs the seeds from `seed` on, for `seconds`, or until one breaks a promise."""
    began = _perf_counter()
    outcome = Outcome()
    for number in range(runs):
        if _perf_counter() - began >= seconds:
            break
        scenario = Scenario.drawn(seed + number)
        violation, world = run(scenario)
        outcome.counts.add(world.counts)
        outcome.coverage.update(world.coverage)
        each(world)
        if violation is not None:
            outcome.found = Found(scenario, violation)
            break
    outcome.took_s = _perf_counter() - began
    return outcome


def search(seconds: float, seed: int) -> Violation | None:
    """The first broken promise found within `seconds`, from `seed` on."""
    found = explore(seconds, seed).found
    return found.violation if found is not None else None
