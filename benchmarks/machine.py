"""The machine of the measurements."""

import os
import platform
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """The facts that the numbers depend on."""

    cores: int
    cpu: str
    memory_gib: float
    kernel: str
    file_system: str
    python: str

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory_gib:.0f} GiB of memory, Linux "
            f"{self.kernel}, {self.file_system}, Python {self.python}"
        )


def this_machine(directory: Path) -> Machine:
    """The facts of this machine; the file system is that of `directory`."""
    return Machine(
        cores=os.cpu_count() or 0,
        cpu=_after_colon(Path("/proc/cpuinfo"), "model name"),
        memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
        kernel=platform.release().split("-")[0],
        file_system=_file_system(directory),
        python=platform.python_version(),
    )


def _after_colon(file: Path, key: str) -> str:
    for line in file.read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "unknown"


def _file_system(directory: Path) -> str:
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0]
    return "unknown"
