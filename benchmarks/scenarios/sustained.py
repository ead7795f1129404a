"""The rate over a run that is long enough to exhaust a disk's burst."""

import statistics
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import take_turn
from benchmarks.engine import Engine
from benchmarks.flood import Flood
from benchmarks.peers import syslogs
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section

_RECORDS = 20_000_000
_STEPS = 20  # the rate is shown for each
_OURS = Engine.name


class Found(msgspec.Struct):
    """Each contender's rates, round by round, and in each round those of the steps."""

    records: int
    records_per_s: dict[str, list[float]]
    cpu_s_per_million: dict[str, list[float]]
    steps_per_s: dict[str, list[list[float]]]


class _Steps:
    """Times a run step by step, from its progress reports."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._reached: list[tuple[int, float]] = []
        self._next = step

    def seen(self, safe: int) -> None:
        """Takes the number of records that are safe now; the last time, all."""
        if safe >= self._next:
            self._reached.append((safe, time.perf_counter()))
            self._next = (safe // self._step + 1) * self._step

    def rates(self, took_s: float) -> list[float]:
        """Records/s of each step of a run that took `took_s` seconds."""
        _, ended = self._reached[-1]
        return [
            (safe - before) / (reached - began)
            for (before, began), (safe, reached) in pairwise([(0, ended - took_s), *self._reached])
        ]


def measure(bench: Bench) -> Found:
    """Sends a long flood to each, and tracks its progress."""
    flood = Flood(1, bench.scaled(_RECORDS), real_looking())
    found = Found(flood.total, defaultdict(list), defaultdict(list), defaultdict(list))
    for _ in bench.each_round("sustained", bench.sustained_rounds):
        for contender in (Engine(), *syslogs(bench.software)):
            steps = _Steps(flood.total // _STEPS)
            turn = take_turn(contender, flood, steps.seen)
            found.records_per_s[contender.name].append(turn.records_per_s)
            found.cpu_s_per_million[contender.name].append(turn.cpu_s_per_million)
            found.steps_per_s[contender.name].append(steps.rates(flood.total / turn.records_per_s))
    return found


def render(found: Found, plots: Path) -> Section:
    """A table of whole runs, and the rates over their course."""
    path = plots / "sustained.svg"
    title = f"Rate along {found.records / 1e6:.3g} million records (median of the rounds)"
    step = found.records / _STEPS / 1e6
    plot.lines(
        path,
        title,
        "million records so far",
        "million records/s",
        {
            name: [
                ((number + 1) * step, statistics.median(of) / 1e6)
                for number, of in enumerate(zip(*rounds, strict=False))
            ]
            for name, rounds in found.steps_per_s.items()
        },
    )
    ours = found.records_per_s[_OURS]
    aims = [
        Aim.at_least(f"sustained, by {name}", 1, report.ratios(ours, theirs))
        for name, theirs in found.records_per_s.items()
        if name != _OURS
    ]
    rounds = len(ours)
    text = (
        f"{found.records:,} records of 256 bytes from 1 client; {rounds} "
        f"round{'s' if rounds > 1 else ''}. Of logengine the way is told by its acks, of the "
        "others by the size of their file.\n\n"
        f"{report.rates(_OURS, found.records_per_s, found.cpu_s_per_million)}\n"
        f"{report.image(path, title)}"
    )
    return Section(text, aims)


SCENARIO = Scenario("sustained", "Sustained", Found, measure, render)
