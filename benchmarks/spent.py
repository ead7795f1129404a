"""What a process and all that it started have spent, and what the disk was given meanwhile."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from benchmarks.disk import written_bytes

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SECTOR_BYTES = 512  # in a block device's `stat`, whatever the device's are
# The numbers of some fields in /sys/dev/block/*/stat, from 0.
_WRITTEN_SECTORS, _FLUSHES = 6, 15
# clock_getcpuclockid(3): the clock of a process, in the kernel's own way to name it.
_CPU_CLOCK = 2


class Spent(msgspec.Struct, frozen=True):
    """Totals of a tree of processes, and of the disk that it writes to.

    `written_bytes` are the pages that the processes made dirty, or wrote directly: each one
    again if it was written again after a sync. `disk_bytes` and `disk_flushes` are all that the
    block device got, so also the file system's journal and what other processes wrote.
    """

    at_s: float
    cpu_s: float
    written_bytes: int
    disk_bytes: int
    disk_flushes: int

    def since(self, before: Self) -> "Spent":
        """What was spent after `before`."""
        return Spent(
            self.at_s - before.at_s,
            self.cpu_s - before.cpu_s,
            self.written_bytes - before.written_bytes,
            self.disk_bytes - before.disk_bytes,
            self.disk_flushes - before.disk_flushes,
        )

    @property
    def cores(self) -> float:
        """The processor time as a share of one core."""
        return self.cpu_s / self.at_s


def spent(pid: int, directory: Path) -> Spent:
    """The totals so far of a process and its descendants, with the disk of `directory`."""
    disk_bytes, disk_flushes = _disk(directory)
    tree = list(_tree(pid))
    return Spent(
        at_s=time.perf_counter(),
        cpu_s=sum(map(_cpu_s, tree)),
        written_bytes=sum(map(written_bytes, tree)),
        disk_bytes=disk_bytes,
        disk_flushes=disk_flushes,
    )


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _cpu_s(pid: int) -> float:
    """User and system time, in nanoseconds, and in ticks that of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended_s = (int(fields[13]) + int(fields[14])) / _TICKS_PER_S
    # `stat` has ticks of 10 ms, which would be a tenth of what is spent at 10 records a second.
    return time.clock_gettime(~pid << 3 | _CPU_CLOCK) + ended_s


def _disk(directory: Path) -> tuple[int, int]:
    """The bytes written, and the flushes; 0 if the file system has no block device of its own."""
    device = os.stat(directory).st_dev
    file = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not file.exists():
        return 0, 0
    fields = [int(field) for field in file.read_text().split()]
    return fields[_WRITTEN_SECTORS] * _SECTOR_BYTES, fields[_FLUSHES]
