"""The measurements as a table in Markdown."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.records import RECORD_BYTES

Rounds = Mapping[str, Sequence[float]]


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of `values` do not pass."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row names the columns."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def throughput(title: str, ours: str, rates: Rounds, cpu: Rounds) -> str:
    """Records/s of each contender, ours as a multiple of it in the same round, its CPU."""
    rows = []
    for name, found in rates.items():
        ratios = [mine / theirs for mine, theirs in zip(rates[ours], found, strict=True)]
        rows.append(
            [
                name,
                f"{statistics.median(found) / 1e6:.3f} million",
                f"{min(found) / 1e6:.3f} to {max(found) / 1e6:.3f}",
                "" if name == ours else f"**{statistics.median(ratios):.2f}x**",
                "" if name == ours else f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{statistics.median(cpu[name]):.2f} s",
            ]
        )
    head = ["", "records/s", "spread", "logengine is", "spread", "CPU per million"]
    return f"## {title}\n\n" + table(head, rows)


def medians(title: str, unit: str, found: Rounds) -> str:
    """Median, least and greatest of some measurements."""
    rows = [
        [name, f"{statistics.median(of):.2f} {unit}", f"{min(of):.2f}", f"{max(of):.2f}"]
        for name, of in found.items()
    ]
    return f"## {title}\n\n" + table(["", "median", "least", "greatest"], rows)


def introduction(rounds: int, records: int, singles: int, missing: Sequence[str]) -> str:
    """How it was measured, and on what."""
    left_out = f" Could not be had here: {', '.join(missing)}." if missing else ""
    return (
        "# Results\n\n"
        f"`make bench`: {rounds} rounds, in each of which all contenders take turns with the "
        f"same real-looking records of {RECORD_BYTES} bytes, over Unix stream sockets (NATS: "
        f"TCP; SQLite: in the process), {records:,} of them, the slow ones fewer. logengine, "
        "Redis, NATS and SQLite are timed to the last acknowledgement. rsyslog and syslog-ng "
        "acknowledge nothing, and are timed until all is visible in their file. Everybody's "
        f"fsync is on; the last table counts. Latencies are of {singles:,} single records, in "
        "turn with a bare loop of *write temp, fsync, replace, fsync directory*. Ratios are "
        "of the same round.\n\n"
        f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}.{left_out} Absolute numbers differ between "
        "machines; the ratios are what to compare.\n"
    )
