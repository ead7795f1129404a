"""How soon a follower shows a record: a real `logengine tail -f`, one record at a time."""

import os
import select
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.engine import LOGENGINE, Client, Engine
from benchmarks.scenario import Aim, Bench, Scenario, Section

_SINGLES = 1000
_STREAM = "followed"
_FROM_ACK, _FROM_SENDING = "ack to line", "sent to line"
_PERCENTS = (50, 99)
_PATIENCE_MS = 10_000


class Found(msgspec.Struct):
    """Percentiles in milliseconds, round by round, and all rounds' distribution."""

    singles: int
    ms: dict[str, list[float]]
    curves_ms: dict[str, list[tuple[float, float]]]  # milliseconds, percent


def measure(bench: Bench) -> Found:
    """Sends a record when the previous one is acknowledged and shown."""
    singles = bench.scaled(_SINGLES)
    found = Found(singles, defaultdict(list), {})
    everything: dict[str, list[float]] = defaultdict(list)
    for _ in bench.each_round("follow"):
        with (
            scratch() as root,
            Engine().running(root) as running,
            closing(Client(running.path, _STREAM)) as client,
            _tail(running.data) as shown,
        ):
            _show(client, shown, 1)  # once this one is shown, it follows
            turns_s = [_show(client, shown, number) for number in range(2, singles + 2)]
        for name, of in zip((_FROM_ACK, _FROM_SENDING), zip(*turns_s, strict=True), strict=True):
            for percent in _PERCENTS:
                found.ms[f"{name} p{percent}, ms"].append(report.percentile(of, percent) * 1000)
            everything[name] += of
    found.curves_ms = {name: report.distribution(of, 1000) for name, of in everything.items()}
    return found


@contextmanager
def _tail(data: Path) -> Iterator[int]:
    """The follower's output, as a descriptor."""
    command = [*LOGENGINE, "tail", "-f", _STREAM, "--format", "raw", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield process.stdout.fileno()
        process.terminate()


def _show(client: Client, shown: int, number: int) -> tuple[float, float]:
    """Seconds from the ack, and from sending, to the follower's line.

    The first is negative if the line came before the ack.
    """
    poll = select.poll()
    for awaited in (client.socket.fileno(), shown):
        poll.register(awaited, select.POLLIN)
    sent = time.perf_counter()
    client.socket.sendall(b'{"event":"tick","number":%d,"sent":%.6f}\n' % (number, sent))
    at: dict[int, float] = {}
    while len(at) < 2:
        ready = poll.poll(_PATIENCE_MS)
        now = time.perf_counter()
        if not ready:
            raise TimeoutError(f"record {number} is not acknowledged, or not shown")
        for descriptor, _ in ready:
            if descriptor == shown:
                line = os.read(shown, 65536)
                if b'"number":%d,' % number not in line:
                    raise ValueError(f"waited for record {number}, and read {line!r}")
            else:
                client.wait_for_ack(number)
            at[descriptor] = now
    return at[shown] - at[client.socket.fileno()], at[shown] - sent


def render(found: Found, plots: Path) -> Section:
    """A table of percentiles, and the distribution."""
    path = plots / "follow.svg"
    title = "Commit to visible: how many records take no longer"
    plot.lines(path, title, "milliseconds", "percent of records", found.curves_ms, dots=False)
    text = (
        f"{found.singles:,} records in each round, one at a time, with "
        "`logengine tail -f --format raw` reading into a pipe: from the moment the ack was read, "
        "and from sending, to the moment the line was read.\n\n"
        f"{report.medians(found.ms)}\n{report.image(path, title)}"
    )
    p99 = found.ms[f"{_FROM_ACK} p99, ms"]
    return Section(text, [Aim.at_most("commit to visible in `tail -f`, p99", 5, p99, " ms")])


SCENARIO = Scenario("follow", "Following", Found, measure, render)
