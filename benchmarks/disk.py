"""Measures the disk space of files: allocated blocks, not lengths."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

_STAT_BLOCK_BYTES = 512  # stat(2): the unit of st_blocks, whatever the file system's


class Use(msgspec.Struct, frozen=True):
    """A number of files, and the space that they take."""

    files: int
    disk_bytes: int


def use_of(directory: Path) -> Use:
    """The space of the files in a directory. What is not synced yet may count as nothing."""
    return use_of_files(directory.iterdir())


def use_of_files(files: Iterable[Path]) -> Use:
    """The space of some files."""
    blocks = [file.stat().st_blocks for file in files]
    return Use(len(blocks), sum(blocks) * _STAT_BLOCK_BYTES)


def written_bytes(pid: int | str = "self") -> int:
    """The bytes that a process has written to disks so far, in whole pages."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return int(value)
    raise ValueError(f"/proc/{pid}/io has no write_bytes")
