"""The cost of a record in journald, which does not sync what it receives."""

from collections import defaultdict
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.contest import take_turn
from benchmarks.engine import Engine
from benchmarks.flood import Contender, Flood
from benchmarks.peers.journald import Journald, has_container
from benchmarks.records import real_looking
from benchmarks.scenario import Bench, Scenario, Section, say

_RECORDS = 200_000


class Found(msgspec.Struct):
    """The rates of each contender, round by round; empty without a container."""

    records: int
    records_per_s: dict[str, list[float]]
    cpu_s_per_million: dict[str, list[float]]


def measure(bench: Bench) -> Found:
    """Floods both in turns, if a container can be booted."""
    flood = Flood(1, bench.scaled(_RECORDS), real_looking())
    found = Found(flood.total, defaultdict(list), defaultdict(list))
    if not has_container():
        say("journald: left out; it needs root and what tests/systemd/prepare makes")
        return found
    contenders: tuple[Contender, ...] = (Engine(), Journald())
    for _ in bench.each_round("journald"):
        for contender in contenders:
            turn = take_turn(contender, flood)
            found.records_per_s[contender.name].append(turn.records_per_s)
            found.cpu_s_per_million[contender.name].append(turn.cpu_s_per_million)
    return found


def render(found: Found, plots: Path) -> Section:
    """A table, or the reason why there is none."""
    if not found.records_per_s:
        return Section("Left out: it needs root and what `tests/systemd/prepare` makes.\n", [])
    text = (
        f"{found.records:,} records of 256 bytes from 1 client, over journald's stdout socket, in "
        "a booted container with its rate limit off, until all are in the journal. It does not "
        "sync per record or batch, but every five minutes, so what it has taken is not on disk.\n\n"
        f"{report.rates(Engine.name, found.records_per_s, found.cpu_s_per_million)}"
    )
    return Section(text, [])


SCENARIO = Scenario("journald", "journald, not synced", Found, measure, render)
