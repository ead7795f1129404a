"""Streams of 1 and 10 GB, sealed and not: the cost of reading from them."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.contest import scratch
from benchmarks.engine import LOGENGINE, Engine
from benchmarks.large_stream import SPAN, START, write_stream
from benchmarks.scenario import Aim, Bench, Scenario, Section, say

_TOTAL_BYTES = 10 * 1000**3
_TENTH = 0.1  # the smaller of two sizes that show what grows with the stream
_SMALL_BYTES = 1000**2  # the baseline of each command: a stream of a megabyte
_SEALED = "sealed, 16 MiB"  # what a daemon leaves
_SEGMENT_BYTES = {_SEALED: 16 * 1024**2, "8 MiB": 8 * 1024**2, "64 KiB": 64 * 1024}
_TURNS = 5
_ALLOWED_MS = 50
_STREAM = "large"
_LOOKS = ("tail -n 10", "cat of a minute", "ls")


class Costs(msgspec.Struct):
    """Milliseconds of each command, and of a start of the daemon, turn by turn."""

    ms: dict[str, list[float]]


class Found(msgspec.Struct):
    """By the kind of segments: the cost for a megabyte, a tenth of the stream, and all of it."""

    total_bytes: int
    records: int
    interpreter_ms: list[float]
    small: dict[str, Costs]
    tenth: dict[str, Costs]
    large: dict[str, Costs]


def measure(bench: Bench) -> Found:
    """Reads repeatedly from a stream for each size of segments."""
    found = Found(bench.scaled(_TOTAL_BYTES), 0, [], {}, {}, {})
    for _ in range(_TURNS):
        found.interpreter_ms.append(_took_ms([sys.executable, "-c", ""]))
    for name, segment_bytes in _SEGMENT_BYTES.items():
        say(f"large: segments of {name}")
        for total_bytes, costs in (
            (_SMALL_BYTES, found.small),
            (int(found.total_bytes * _TENTH), found.tenth),
            (found.total_bytes, found.large),
        ):
            with scratch() as root:
                found.records = write_stream(
                    root / "data" / _STREAM, total_bytes, segment_bytes, sealed=name == _SEALED
                )
                costs[name] = _look(root)
    return found


def _look(root: Path) -> Costs:
    data = ["--data", str(root / "data")]
    since, until = ((START + SPAN * (minute / (24 * 60))).isoformat() for minute in (720, 721))
    commands = {
        "tail -n 10": ["tail", _STREAM, "-n", "10", *data],
        "cat of a minute": ["cat", _STREAM, "--since", since, "--until", until, *data],
        "ls": ["ls", *data],
    }
    ms: dict[str, list[float]] = {name: [] for name in (*commands, "start")}
    for _ in range(_TURNS):
        for name, command in commands.items():
            ms[name].append(_took_ms([*LOGENGINE, *command]))
        began = time.perf_counter()
        with Engine().running(root):
            ms["start"].append((time.perf_counter() - began) * 1000)
    return Costs(ms)


def _took_ms(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


def render(found: Found, plots: Path) -> Section:
    """A table of all commands, and how much longer the large stream takes than a small one."""
    rows = []
    aims = []
    for name, large in found.large.items():
        for command, ms in large.ms.items():
            small = found.small[name].ms[command]
            tenth = found.tenth[name].ms[command]
            more = [of_large - of_small for of_large, of_small in zip(ms, small, strict=True)]
            cells = [report.median(values, "ms") for values in (small, tenth, ms, more)]
            # What grows proportionally also does so from the tenth to the whole.
            grown_ms = (statistics.median(ms) - statistics.median(tenth)) / (1 - _TENTH)
            ten_times_ms = statistics.median(ms) + 9 * grown_ms
            rows.append([command, name, *cells, f"{ten_times_ms:.0f} ms"])
            if command in _LOOKS[:2] and name == _SEALED:
                work = f"`{command}` in segments of {name}, beyond the same of a megabyte"
                aims.append(Aim.at_most(work, _ALLOWED_MS, more, " ms"))
    size_gb = found.total_bytes / 1e9
    head = [
        "",
        "segments of",
        "of 1 MB",
        f"of {size_gb * _TENTH:g} GB",
        f"of {size_gb:g} GB",
        "more than 1 MB",
        f"so of {size_gb * 10:g} GB",
    ]
    text = (
        f"One stream of {found.records:,} records over a day, written as segment files by the "
        "codec, as a daemon leaves them (sealed) and as it would if it never compacted, and "
        "commands on it as whole processes into /dev/null; the minute is in the "
        "middle, and has 1/1440 of the records. The last column goes on as from the third to the "
        "fourth. An interpreter that does nothing takes "
        f"{report.median(found.interpreter_ms, 'ms')}. The page cache is as the writing left "
        f"it.\n\n{report.table(head, rows)}"
    )
    return Section(text, aims)


SCENARIO = Scenario("large", "A stream of 1 and of 10 GB", Found, measure, render)
