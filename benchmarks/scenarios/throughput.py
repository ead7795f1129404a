"""How many records a second each contender makes durable, and the CPU time for it."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import count_syncs, take_turn
from benchmarks.engine import Engine, Null
from benchmarks.flood import Contender, Flood
from benchmarks.peers import missing, peers, syslogs
from benchmarks.peers.redis import Redis
from benchmarks.peers.sqlite import Sqlite
from benchmarks.peers.syslogs import Rsyslog, SyslogNg
from benchmarks.records import RECORD_BYTES, real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section

_OURS = Engine.name


@dataclass(frozen=True)
class _Load:
    title: str
    record_bytes: int
    clients: int
    records: int
    against: Callable[[Path], Sequence[Contender]]


_LOADS = (
    _Load("256-byte records, 1 client", RECORD_BYTES, 1, 2_000_000, peers),
    _Load("256-byte records, 16 clients", RECORD_BYTES, 16, 2_000_000, peers),
    _Load("64-byte records, 1 client", 64, 1, 3_000_000, syslogs),
    _Load("4 KiB records, 1 client", 4096, 1, 300_000, syslogs),
)


class Measured(msgspec.Struct):
    """One load: the results of each contender, round by round."""

    title: str
    record_bytes: int
    records: int
    records_per_s: dict[str, list[float]] = msgspec.field(default_factory=lambda: defaultdict(list))
    cpu_s_per_million: dict[str, list[float]] = msgspec.field(
        default_factory=lambda: defaultdict(list)
    )
    engine_peak_mib: list[float] = []


class Found(msgspec.Struct):
    """All loads; how often each contender synced, and for how many records; missing ones."""

    loads: list[Measured]
    syncs: dict[str, tuple[int, int]]
    missing: list[str]


def measure(bench: Bench) -> Found:
    """Floods all contenders with each of the loads in turn."""
    samples = {load.record_bytes: real_looking(load.record_bytes) for load in _LOADS}
    loads = [Measured(load.title, load.record_bytes, bench.scaled(load.records)) for load in _LOADS]
    for _ in bench.each_round("throughput"):
        for load, measured in zip(_LOADS, loads, strict=True):
            flood = Flood(load.clients, measured.records, samples[load.record_bytes])
            for contender in (Engine(), *load.against(bench.software), Null()):
                if load.clients > contender.clients_max:
                    continue
                turn = take_turn(contender, flood)
                measured.records_per_s[contender.name].append(turn.records_per_s)
                measured.cpu_s_per_million[contender.name].append(turn.cpu_s_per_million)
                if contender.name == _OURS:
                    measured.engine_peak_mib.append(turn.peak_mib)
    syncs = {}
    if (bench.software / "usr/bin/strace").exists():
        flood = Flood(1, loads[0].records, samples[RECORD_BYTES])
        for contender in (Engine(), *peers(bench.software)):
            # A library has no separate process to trace.
            if not isinstance(contender, Sqlite):
                syncs[contender.name] = count_syncs(contender, flood, bench.software)
    return Found(loads, syncs, missing(bench.software))


def render(found: Found, plots: Path) -> Section:
    """A table for each load, one of syncs, and a plot of the rates."""
    parts, aims = [], []
    if found.missing:
        parts.append(f"Could not be had here: {', '.join(found.missing)}.\n")
    for load in found.loads:
        parts.append(
            f"### {load.title}\n\n{load.records:,} of them, or fewer for who is slow. The "
            f"daemon's peak of memory: {report.median(load.engine_peak_mib, 'MiB')}.\n"
        )
        parts.append(report.rates(_OURS, load.records_per_s, load.cpu_s_per_million))
        aims += _aims(load)
    path = plots / "throughput.svg"
    title = "Durable records a second (median)"
    plot.bars(
        path,
        title,
        "million records/s",
        {
            load.title: {
                name.partition(",")[0]: statistics.median(values) / 1e6
                for name, values in load.records_per_s.items()
                if name != Null.name
            }
            for load in reversed(found.loads)
        },
    )
    parts.append(report.image(path, title))
    rows = [[name, f"{syncs:,}", f"{records:,}"] for name, (syncs, records) in found.syncs.items()]
    if rows:
        parts.append("### Syncs, counted by strace in a run of its own\n")
        parts.append(report.table(["", "fsync, fdatasync and the like", "records"], rows))
    return Section("\n".join(parts), aims)


def _aims(load: Measured) -> list[Aim]:
    rates, cpu = load.records_per_s, load.cpu_s_per_million
    rivals = [rates[name] for name in (Rsyslog.name, SyslogNg.name) if name in rates]
    usual = load.record_bytes == RECORD_BYTES
    aims = []
    if rivals:
        better = [max(of) for of in zip(*rivals, strict=True)]
        times = report.ratios(rates[_OURS], better)
        work = f"durable records/s, {load.title}, by the better of rsyslog and syslog-ng"
        aims.append(Aim.at_least(work, 1.5 if usual else 1, times))
    if Redis.name in rates:
        times = report.ratios(rates[_OURS], rates[Redis.name])
        aims.append(Aim.at_least(f"the same by {Redis.name}", 3, times))
    if usual and SyslogNg.name in cpu:
        times = report.ratios(cpu[_OURS], cpu[SyslogNg.name])
        aims.append(Aim.at_most(f"CPU per million, {load.title}, by syslog-ng's", 1, times))
    return aims


SCENARIO = Scenario("throughput", "Throughput", Found, measure, render)
