"""Keeps results, one file per scenario, and makes the report of all of them."""

import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.contest import CHECKOUT
from benchmarks.machine import Machine, this_machine
from benchmarks.report import table
from benchmarks.scenario import Aim, Bench, Scenario

_INTRODUCTION = """# Results

Written by `make bench`; see `python -m benchmarks --help` for parts of it. What was measured
lies in `results/`, and this page is made of it.

**How.** Contenders take turns in interleaved rounds, each on an empty directory of the same
disk, with the same real-looking records (random ids and words, 16 MiB before one comes again).
A ratio is one of the same round. What is shown is the median of the rounds, and the least and
the greatest. Absolute numbers differ between machines and days; the ratios are what to compare.

**What counts.** Nothing of logengine's counts before its ack, and an ack means on disk. Redis,
NATS and SQLite are timed to their last acknowledgement too. rsyslog and syslog-ng acknowledge
nothing, and are timed until all is visible in their file. Everybody's fsync is on, and counted
by strace; only journald does not sync for each batch, and cannot be made to.

**The load generator** is not what is measured: *null* is a server that acknowledges at once and
keeps nothing, under the same load.

**The bare loop** is what an ack cannot do without: *write temp, fsync, replace, fsync of the
directory*, from one thread, with nothing around it.
"""


class Kept(msgspec.Struct, frozen=True):
    """One scenario's measurements, and their circumstances."""

    machine: Machine
    rounds: int
    scale: float
    took_s: float
    found: msgspec.Raw


def measure(scenario: Scenario[Any], bench: Bench, into: Path) -> None:
    """Measures, and replaces the previous result."""
    began = time.monotonic()
    found = scenario.measure(bench)
    kept = Kept(
        machine=this_machine(CHECKOUT),
        rounds=bench.rounds,
        scale=bench.scale,
        took_s=round(time.monotonic() - began, 1),
        found=msgspec.Raw(msgspec.json.encode(found)),
    )
    path = _path(into, scenario)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


def render(scenarios: list[Scenario[Any]], into: Path, readme: Path | None = None) -> None:
    """Writes RESULTS.md and its plots from all kept results, and their tables into the README."""
    aims: list[Aim] = []
    sections: list[str] = []
    machines: dict[str, list[str]] = {}
    for scenario in scenarios:
        path = _path(into, scenario)
        if not path.exists():
            continue
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
        section = scenario.render(
            msgspec.json.decode(kept.found, type=scenario.found), into / "plots"
        )
        # Compares as shown: after a restart the same machine has slightly more or fewer pages.
        machines.setdefault(str(kept.machine), []).append(scenario.name)
        aims += section.aims
        if readme is not None and section.readme:
            text = with_table(readme.read_text(), scenario.name, section.readme)
            readme.write_text(text)
        sections.append(f"## {scenario.title}\n\n{_shortened(kept)}{section.text}")
    facts = [f"**Where** ({', '.join(names)}): {machine}.\n" for machine, names in machines.items()]
    (into / "RESULTS.md").write_text(
        "\n".join([_INTRODUCTION, *facts, "## Aims\n", _aims(aims), *sections])
    )


def with_table(text: str, name: str, shown: str) -> str:
    """The README's text, with a scenario's table where its two marks are.

    Raises `ValueError` if it does not have them.
    """
    begin, end = f"<!-- `make bench` writes {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"the README has no {begin.strip()} and {end.strip()}")
    return f"{before}{begin}{shown}{end}{after}"


def _aims(aims: list[Aim]) -> str:
    rows = [[aim.work, aim.wanted, aim.measured, "yes" if aim.is_met else "no"] for aim in aims]
    return table(["work", "aim", "measured", "met"], rows)


def _shortened(kept: Kept) -> str:
    if kept.scale >= 1:
        return ""
    return f"*A shortened run: {kept.rounds} rounds, counts times {kept.scale}.*\n\n"


def _path(into: Path, scenario: Scenario[Any]) -> Path:
    return into / "results" / f"{scenario.name}.json"
