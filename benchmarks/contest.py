"""One contender's turn: it is started on an empty directory, measured, and discarded."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.flood import Contender, Flood, Seen, cpu_s, peak_mib, unseen
from benchmarks.software import environ

CHECKOUT = Path(__file__).parents[1]
_TRACED_RECORDS_MAX = 100_000


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
        wrapper = [
            *(str(software / "usr/bin/strace"), "-f", "-c", "-o", str(counts)),
            *("-e", "trace=fsync,fdatasync,sync_file_range,msync,syncfs"),
            # The contender's own libraries are not for strace.
            *("-E", f"LD_LIBRARY_PATH={environ(software)['LD_LIBRARY_PATH']}"),
        ]
        with contender.running(root, wrapper) as running:
            running.take(flood)
            # strace passes no signal on: signal the traced process directly.
            subprocess.run(["pkill", "-TERM", "-P", str(running.pid)], check=False)
        found = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)", counts.read_text(), re.MULTILINE)
        return (int(found[-1]) if found else 0), flood.total
