"""One contender's turn: it is started on an empty directory, measured, and discarded."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.flood import Contender, Flood, Running, Seen, cpu_s, peak_mib, unseen
from benchmarks.software import environ

R = TypeVar("R", bound=Running)
CHECKOUT = Path(__file__).parents[1]
_TRACED_RECORDS_MAX = 100_000
_SYNCS = "trace=fsync,fdatasync,sync_file_range,msync,syncfs"


class Turn(NamedTuple):
    """The measurements of one turn."""

    records_per_s: float
    cpu_s_per_million: float
    peak_mib: float


@contextmanager
def scratch(parent: Path = CHECKOUT) -> Iterator[Path]:
    """An empty directory on the disk of this checkout, with a path short enough for a socket."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def take_turn(contender: Contender, flood: Flood, seen: Seen = unseen) -> Turn:
    """Sends `flood`, or as much of it as this one can handle, to a contender."""
    flood = flood.of(contender.records_max)
    with scratch() as root, contender.running(root) as running:
        before = cpu_s(running.pid)
        took_s = running.take(flood, seen)
        used_s = cpu_s(running.pid) - before
        return Turn(flood.total / took_s, used_s / flood.total * 1e6, peak_mib(running.pid))


def count_syncs(contender: Contender, flood: Flood, software: Path) -> tuple[int, int]:
    """How often a contender synced while it stored `flood`, and for how many records."""
    flood = flood.of(min(contender.records_max, _TRACED_RECORDS_MAX))
    with scratch() as root:
        counts = root / "syncs"
        with _traced(contender.running, root, software, ["-c", "-o", str(counts)]) as running:
            running.take(flood)
        found = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)", counts.read_text(), re.MULTILINE)
        return (int(found[-1]) if found else 0), flood.total


@contextmanager
def _traced(
    start: Callable[[Path, Sequence[str]], AbstractContextManager[R]],
    root: Path,
    software: Path,
    options: Sequence[str],
) -> Iterator[R]:
    """A contender under strace, which looks at nothing but syncs."""
    wrapper = [
        *(str(software / "usr/bin/strace"), "-f", "--seccomp-bpf", *options, "-e", _SYNCS),
        # The contender's own libraries are not for strace.
        *("-E", f"LD_LIBRARY_PATH={environ(software)['LD_LIBRARY_PATH']}"),
    ]
    with start(root, wrapper) as running:
        yield running
        # strace passes no signal on: signal the traced process directly.
        subprocess.run(["pkill", "-TERM", "-P", str(running.pid)], check=False)


@contextmanager
def syncs_timed(
    start: Callable[[Path, Sequence[str]], AbstractContextManager[R]], root: Path, software: Path
) -> Iterator[tuple[R, Callable[[], list[float]]]]:
    """What `start` starts, and a function: when it synced so far, in seconds since the epoch."""
    trace = root / "syncs"

    def times() -> list[float]:
        # A call that another thread's interrupts is shown once more, as resumed.
        return [
            float(line.split()[1])
            for line in trace.read_text().splitlines()
            if "sync" in line and "resumed>" not in line
        ]

    with _traced(start, root, software, ["-ttt", "-o", str(trace)]) as running:
        yield running, times
