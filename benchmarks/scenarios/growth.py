"""The cost of a record in a stream that is already long, and of starting and `tail`."""

import statistics
import subprocess
import time
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.engine import LOGENGINE, Engine, Singles
from benchmarks.flood import Flood
from benchmarks.records import Sample, real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section

_SMALLEST = 10_000
_ADDED = 200_000
_SINGLES = 300
_STREAM = "grown"


class Sized(msgspec.Struct):
    """The measurements of a stream of some size, round by round."""

    records_per_s: list[float] = []
    ack_p50_us: list[float] = []
    start_ms: list[float] = []
    tail_ms: list[float] = []


class Found(msgspec.Struct):
    """By the number of records in the stream."""

    added: int
    sizes: dict[int, Sized]


def measure(bench: Bench) -> Found:
    """Measures a separate stream for each size, after growing it."""
    sizes = [_SMALLEST]
    while (larger := sizes[-1] * 10) <= bench.growth_max:
        sizes.append(larger)
    found = Found(bench.scaled(_ADDED), {size: Sized() for size in sizes})
    sample = real_looking()
    for _ in bench.each_round("growth"):
        for size, sized in found.sizes.items():
            with scratch() as root:
                _measure_one(root, size, sized, sample, bench)
    return found


def _measure_one(root: Path, size: int, sized: Sized, sample: Sample, bench: Bench) -> None:
    with Engine().running(root) as running:
        running.take(Flood(1, size, sample), stream=_STREAM)
    tail = [*LOGENGINE, "tail", _STREAM, "-n", "10", "--data", str(running.data)]
    began = time.perf_counter()
    subprocess.run(tail, stdout=subprocess.DEVNULL, check=True)
    sized.tail_ms.append((time.perf_counter() - began) * 1000)
    began = time.perf_counter()
    with Engine().running(root) as running:
        sized.start_ms.append((time.perf_counter() - began) * 1000)
        with closing(Singles(running.path, sample.record, _STREAM)) as client:
            turns_s = [client.turn_s() for _ in range(bench.scaled(_SINGLES))]
        sized.ack_p50_us.append(report.percentile(turns_s, 50) * 1e6)
        flood = Flood(1, bench.scaled(_ADDED), sample)
        sized.records_per_s.append(flood.total / running.take(flood, stream=_STREAM))


def render(found: Found, plots: Path) -> Section:
    """A table by size, and a plot of the costs."""
    rows = [
        [
            f"{size:,}",
            report.median([rate / 1e6 for rate in sized.records_per_s], "million"),
            *(report.median(of) for of in (sized.ack_p50_us, sized.start_ms, sized.tail_ms)),
        ]
        for size, sized in found.sizes.items()
    ]
    head = [
        *("records there", f"records/s of {found.added:,} more", "ack p50 of single ones, us"),
        *("start of the daemon, ms", "`tail -n 10`, ms"),
    ]
    costs = {
        size: [1e6 / rate for rate in sized.records_per_s] for size, sized in found.sizes.items()
    }
    cost_path, cost_title = plots / "growth.svg", "Cost of a record by the size of its stream"
    plot.lines(
        cost_path,
        cost_title,
        "records in the stream",
        "microseconds a record",
        {"logengine": [(size, statistics.median(of)) for size, of in costs.items()]},
        log_x=True,
    )
    start_path, start_title = plots / "growth-start.svg", "Start and tail by the size of the stream"
    plot.lines(
        start_path,
        start_title,
        "records in the stream",
        "milliseconds",
        {
            name: [(size, statistics.median(getattr(of, key))) for size, of in found.sizes.items()]
            for name, key in (("start of the daemon", "start_ms"), ("tail -n 10", "tail_ms"))
        },
        log_x=True,
    )
    text = (
        "One stream, grown by the daemon to each size, which is then started anew. Start and "
        "`tail` are whole processes, their interpreter's start included.\n\n"
        f"{report.table(head, rows)}\n{report.image(cost_path, cost_title)}\n"
        f"{report.image(start_path, start_title)}"
    )
    smallest, largest = min(costs), max(costs)
    work = f"cost of a record, {largest:,} in the stream, by {smallest:,}"
    return Section(text, [Aim.flat(work, costs[largest], costs[smallest])])


SCENARIO = Scenario("growth", "A growing stream", Found, measure, render)
