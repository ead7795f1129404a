"""One user sends all that the daemon takes; how long another user's acks take meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.contest import scratch
from benchmarks.engine import Client, Engine, Singles
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section

_ATTACKS = (
    ("records", 1),
    ("records", 16),
    ("blank lines", 64),
    ("empty objects", 16),
    ("short text", 16),
    ("not UTF-8", 16),
    ("100,000 keys", 16),
    ("huge records", 16),
    ("many streams", 500),
)
_SINGLES = 100
_WARM_UP_S = 1.0
_P99_TIMES_MAX = 5


class Found(msgspec.Struct):
    """Milliseconds for each attack, round by round; a hello is timed once a round."""

    singles: int
    users_differ: bool
    alone_p99_ms: dict[str, list[float]]
    attacked_p99_ms: dict[str, list[float]]
    hello_ms: dict[str, list[float]]


def measure(bench: Bench) -> Found:
    """Times single records of one sender, alone and then beside an attack."""
    singles = bench.scaled(_SINGLES)
    names = [_name(*attack) for attack in _ATTACKS]
    found = Found(
        singles,
        os.geteuid() == 0,
        *({name: [] for name in names} for _ in range(3)),  # type: ignore[arg-type]
    )
    for _ in bench.each_round("fairness"):
        for kind, connections in _ATTACKS:
            name = _name(kind, connections)
            with scratch() as root:
                root.chmod(0o755)  # the attacker is another user
                with Engine().running(root) as running:
                    found.alone_p99_ms[name].append(_p99_ms(running.path, singles))
                    with _attacked(running.path, kind, connections):
                        time.sleep(_WARM_UP_S)
                        began = time.perf_counter()
                        with closing(Client(running.path, "hello")):
                            found.hello_ms[name].append((time.perf_counter() - began) * 1000)
                        found.attacked_p99_ms[name].append(_p99_ms(running.path, singles))
    return found


def _name(kind: str, connections: int) -> str:
    return f"{kind}, {connections} connection{'s' * (connections > 1)}"


def _p99_ms(path: Path, singles: int) -> float:
    with closing(Singles(path, real_looking(blocks=1).record)) as client:
        return report.percentile([client.turn_s() for _ in range(singles)], 99) * 1000


@contextmanager
def _attacked(path: Path, kind: str, connections: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.attack", str(path), kind, str(connections)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout is not None
        try:
            if not attacker.stdout.readline():
                raise ConnectionError(f"the attack {kind!r} did not begin")
            yield
        finally:
            attacker.kill()


def render(found: Found, plots: Path) -> Section:
    """A table of the attacks, and an aim for each."""
    rows = []
    aims = []
    for name, alone_ms in found.alone_p99_ms.items():
        attacked_ms = found.attacked_p99_ms[name]
        times = report.ratios(attacked_ms, alone_ms)
        rows.append(
            [
                name,
                report.median(alone_ms, "ms"),
                report.median(attacked_ms, "ms"),
                f"**{report.median(times)}x**",
                report.spread(times),
                report.median(found.hello_ms[name], "ms"),
            ]
        )
        aims.append(Aim.at_most(f"ack p99 beside {name}, by alone", _P99_TIMES_MAX, times))
    head = ["attack", "ack p99 alone", "attacked", "times", "spread", "hello, attacked"]
    whose = "another user" if found.users_differ else "the same user (it was not run as root)"
    text = (
        f"{found.singles:,} single records of one client in each round, each sent when the one "
        f"before is acknowledged: alone, and while {whose} sends as much as the daemon takes.\n\n"
        f"{report.table(head, rows)}"
    )
    return Section(text, aims)


SCENARIO = Scenario("fairness", "Beside a user who wants everything", Found, measure, render)
