"""Many connections that each send a little: how long their acks take."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.engine import BareLoop, Engine, Null
from benchmarks.flood import cpu_s, peak_mib
from benchmarks.paced import Load, Paced
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section

_CONNECTIONS = 1000
_RECORDS_PER_S = 100 * _CONNECTIONS
_DURATION_S = 10.0
_GROWTH = (1, 10, 100, 500, 1000, 2000)
_GROWTH_RECORDS_PER_S = 20_000
_GROWTH_DURATION_S = 4.0
_DURATION_S_MIN = 2.0  # the first second is not measured
_BARE_TURNS = 1000


class Turn(msgspec.Struct, frozen=True):
    """What the load generator measured, and the server's resource use."""

    paced: Paced
    cpu_share: float
    peak_mib: float

    @property
    def cpu_us_per_record(self) -> float:
        """The server's use per connection."""
        return self.cpu_share / self.paced.sent_per_s * 1e6


class Found(msgspec.Struct):
    """Turns of the daemon and of the null server, one per round; the daemon's also by connections.

    The bare loop's percentiles are from the same rounds.
    """

    bare_p50_ms: list[float]
    bare_p99_ms: list[float]
    engine: list[Turn]
    null: list[Turn]
    growth: dict[int, list[Turn]]


def measure(bench: Bench) -> Found:
    """The bare loop, the null server and the daemon in turns; then fewer and more connections."""
    found = Found([], [], [], [], {count: [] for count in _GROWTH})
    duration_s = max(_DURATION_S_MIN, _DURATION_S * bench.scale)
    growth_s = max(_DURATION_S_MIN, _GROWTH_DURATION_S * bench.scale)
    record = real_looking(blocks=1).record
    for _ in bench.each_round("connections"):
        with scratch() as root, closing(BareLoop(root, record)) as bare:
            turns_s = [bare.turn_s() for _ in range(bench.scaled(_BARE_TURNS))]
        found.bare_p50_ms.append(report.percentile(turns_s, 50) * 1000)
        found.bare_p99_ms.append(report.percentile(turns_s, 99) * 1000)
        found.null.append(_turn(Null(), _CONNECTIONS, _RECORDS_PER_S, duration_s))
        found.engine.append(_turn(Engine(), _CONNECTIONS, _RECORDS_PER_S, duration_s))
        for count, turns in found.growth.items():
            turns.append(_turn(Engine(), count, _GROWTH_RECORDS_PER_S, growth_s))
    return found


def _turn(server: Engine | Null, connections: int, records_per_s: int, duration_s: float) -> Turn:
    with scratch() as root, server.running(root) as running:
        before_s = cpu_s(running.pid)
        paced = running.pace(Load(connections, records_per_s, duration_s))
        used_s = cpu_s(running.pid) - before_s
        return Turn(paced, used_s / duration_s, peak_mib(running.pid))


_COLUMNS: dict[str, Callable[[Turn], float]] = {
    "records/s": lambda turn: turn.paced.sent_per_s,
    "ack p50, ms": lambda turn: turn.paced.p50_ms,
    "ack p99, ms": lambda turn: turn.paced.p99_ms,
    "greatest, ms": lambda turn: turn.paced.greatest_ms,
    "sent late p99, ms": lambda turn: turn.paced.late_p99_ms,
    "held back": lambda turn: turn.paced.held_back,
    "never acked": lambda turn: turn.paced.unacked,
    "generator's cores": lambda turn: turn.paced.cpu_share,
    "server's cores": lambda turn: turn.cpu_share,
    "us a record": lambda turn: turn.cpu_us_per_record,
    "server's peak, MiB": lambda turn: turn.peak_mib,
}


def _row(name: str, turns: Sequence[Turn]) -> list[str]:
    return [name, *(report.median([value(turn) for turn in turns]) for value in _COLUMNS.values())]


def render(found: Found, plots: Path) -> Section:
    """A table of both servers, one of the growth, and its plot."""
    p50 = report.ratios([turn.paced.p50_ms for turn in found.engine], found.bare_p50_ms)
    p99 = report.ratios([turn.paced.p99_ms for turn in found.engine], found.bare_p99_ms)
    path = plots / "connections.svg"
    title = f"Ack latency at {_GROWTH_RECORDS_PER_S:,} records/s in all, by connections"
    curves = {
        name: [
            (count, statistics.median([_COLUMNS[f"ack {name}, ms"](turn) for turn in turns]))
            for count, turns in found.growth.items()
        ]
        for name in ("p50", "p99")
    }
    plot.lines(path, title, "connections", "milliseconds", curves, log_x=True)
    costs = {
        count: [turn.cpu_us_per_record for turn in turns] for count, turns in found.growth.items()
    }
    cost_path = plots / "connections-cost.svg"
    cost_title = f"The daemon's CPU at {_GROWTH_RECORDS_PER_S:,} records/s in all, by connections"
    medians = [(count, statistics.median(of)) for count, of in costs.items()]
    plot.lines(
        *(cost_path, cost_title, "connections", "microseconds a record"),
        {"logengine": medians},
        log_x=True,
    )
    head = ["", *_COLUMNS]
    parts = [
        (
            f"{_CONNECTIONS:,} connections, {_RECORDS_PER_S // _CONNECTIONS} records a second on "
            "each, evenly spread, 256 bytes each, into one stream. The load generator is a process "
            "of its own; what it shows of the null server is its own part. A latency is from the "
            "moment a record was written to the moment its ack was read.\n"
        ),
        report.table(head, [_row("null", found.null), _row("logengine", found.engine)]),
        report.medians(
            {
                "ack p50 / bare loop p50": p50,
                "ack p99 / bare loop p99": p99,
                "bare loop p50, ms": found.bare_p50_ms,
                "bare loop p99, ms": found.bare_p99_ms,
            }
        ),
        f"### {_GROWTH[0]} to {_GROWTH[-1]:,} connections\n",
        report.table(head, [_row(f"{count:,}", turns) for count, turns in found.growth.items()]),
        report.image(path, title),
        report.image(cost_path, cost_title),
    ]
    work = f"{_CONNECTIONS:,} connections, {_RECORDS_PER_S // _CONNECTIONS} records/s each"
    aims = [
        Aim.at_most(f"{work}: p99 ack by the bare loop's", 10, p99),
        Aim.at_most(f"{work}: peak memory", 250, [turn.peak_mib for turn in found.engine], " MiB"),
        Aim.flat(
            f"CPU of a record, {_GROWTH[-1]:,} connections, by {_GROWTH[0]}",
            costs[_GROWTH[-1]],
            costs[_GROWTH[0]],
        ),
    ]
    return Section("\n".join(parts), aims)


SCENARIO = Scenario("connections", "Many connections", Found, measure, render)
