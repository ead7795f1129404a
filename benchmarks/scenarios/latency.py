"""The time from one record to its ack, without other load."""

from collections import defaultdict
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.engine import BareLoop, Engine, Singles
from benchmarks.peers import peers
from benchmarks.peers.nats import Nats
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section

_SINGLES = 1000
_BARE = "bare loop"


class Found(msgspec.Struct):
    """Each contender's percentiles in microseconds, round by round, and all rounds' curve."""

    singles: int
    p50_us: dict[str, list[float]]
    p99_us: dict[str, list[float]]
    curves_us: dict[str, list[tuple[float, float]]]  # microseconds, percent


def measure(bench: Bench) -> Found:
    """Sends single records, alternating with a bare loop; then the same to NATS."""
    record = real_looking(blocks=1).record
    singles = bench.scaled(_SINGLES)
    p50, p99 = defaultdict(list), defaultdict(list)
    everything: dict[str, list[float]] = defaultdict(list)
    nats = [peer for peer in peers(bench.software) if isinstance(peer, Nats)]
    for _ in bench.each_round("latency"):
        found_s: dict[str, list[float]] = {Engine.name: [], _BARE: []}
        with (
            scratch() as root,
            Engine().running(root) as running,
            closing(BareLoop(root, record)) as bare,
            closing(Singles(running.path, record)) as client,
        ):
            for _ in range(singles):
                found_s[_BARE].append(bare.turn_s())
                found_s[Engine.name].append(client.turn_s())
        for peer in nats:
            with scratch() as root, peer.running(root) as into:
                found_s[peer.name] = [into.turn_s(record.rstrip()) for _ in range(singles)]
        for name, values_s in found_s.items():
            p50[name].append(report.percentile(values_s, 50) * 1e6)
            p99[name].append(report.percentile(values_s, 99) * 1e6)
            everything[name] += values_s
    curves = {name: report.distribution(of, 1e6) for name, of in everything.items()}
    return Found(singles, p50, p99, curves)


def render(found: Found, plots: Path) -> Section:
    """A table of percentiles and ratios, and the distribution."""
    ours, nats = Engine.name, Nats.name
    shown: dict[str, list[float]] = {}
    for name in found.p50_us:
        shown[f"{name} p50, us"] = found.p50_us[name]
        shown[f"{name} p99, us"] = found.p99_us[name]
    p50 = report.ratios(found.p50_us[ours], found.p50_us[_BARE])
    p99 = report.ratios(found.p99_us[ours], found.p99_us[_BARE])
    shown[f"{ours} p50 / {_BARE} p50"] = p50
    shown[f"{ours} p99 / {_BARE} p99"] = p99
    work = "ack latency, one record at a time, p{} by the bare loop's"
    aims = [Aim.at_most(work.format(50), 1.35, p50), Aim.at_most(work.format(99), 2, p99)]
    if nats in found.p50_us:
        times = report.ratios(found.p50_us[ours], found.p50_us[nats])
        shown[f"{ours} p50 / {nats} p50"] = times
        aims.append(Aim.at_most("the same, p50 by NATS JetStream's", 1, times))
    path = plots / "latency.svg"
    title = "Ack latency of single records: how many take no longer"
    plot.lines(
        path,
        title,
        "microseconds",
        "percent of records",
        found.curves_us,
        dots=False,
    )
    text = (
        f"{found.singles:,} single records of one client in each round, each sent when the one "
        "before is acknowledged, in turn with a turn of the bare loop.\n\n"
        f"{report.medians(shown)}\n{report.image(path, title)}"
    )
    return Section(text, aims)


SCENARIO = Scenario("latency", "One record at a time", Found, measure, render)
