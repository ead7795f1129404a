"""What is known of the file system of an open directory: risks to durability, the way to commit.

Reads /proc and /sys, and asks the file system's driver, but never the disk. What cannot be
determined is not a risk; and commits then go the way that is safe everywhere. Blocking calls.
"""

import contextlib
import fcntl
import os

from logengine.disk.commit_way import (
    EXT4_FEATURES_BYTES,
    EXT4_FEATURES_IOCTL,
    XFS_GEOMETRY_BYTES,
    XFS_GEOMETRY_IOCTL,
    CommitWay,
    FileSystemFacts,
    commit_way,
)
from logengine.disk.directory import Directory
from logengine.disk.mounts import Mount, base_of, mount_called, parse_mounts, risks_of

_MOUNTS = "/proc/self/mountinfo"
_NO_JOURNAL = "<none>"
_JOURNAL_INODE = 8  # of an ext4's journal, if it is on the same device


def risks_at(directory: Directory) -> list[str]:
    """The known risks to the durability of data in `directory`, one reason each."""
    with contextlib.suppress(OSError, ValueError):
        mounts = parse_mounts(_read(_MOUNTS))
        mount = mount_called(mounts, mount_id_of(directory.descriptor))
        if mount is not None:
            return risks_of(mounts, mount, has_journal=_has_journal(base_of(mounts, mount)))
    return []


def commit_way_at(directory: Directory) -> CommitWay:
    """How many flushes a commit in `directory` needs. Never raises."""
    return commit_way(_facts_of(directory.descriptor))


def _facts_of(descriptor: int) -> FileSystemFacts:
    try:
        mount = mount_called(parse_mounts(_read(_MOUNTS)), mount_id_of(descriptor))
        # Another directory may be mounted over a name in /sys or /proc; `st_dev` is the kernel's.
        number = os.fstat(descriptor).st_dev
        if mount is None or mount.device != f"{os.major(number)}:{os.minor(number)}":
            return FileSystemFacts()
    except (OSError, ValueError):
        return FileSystemFacts()
    facts = FileSystemFacts(mount)
    if mount.kind == "xfs":
        return facts._replace(
            geometry=_asked(descriptor, XFS_GEOMETRY_IOCTL, XFS_GEOMETRY_BYTES),
        )
    if mount.kind == "ext4":
        with contextlib.suppress(OSError):
            name = os.path.basename(os.readlink(f"/sys/dev/block/{mount.device}"))
            return facts._replace(
                options=frozenset(_read(f"/proc/fs/ext4/{name}/options").split()),
                has_own_journal=f"{name}-{_JOURNAL_INODE}" in os.listdir("/proc/fs/jbd2"),
                features=_asked(descriptor, EXT4_FEATURES_IOCTL, EXT4_FEATURES_BYTES),
            )
    return facts


def _asked(descriptor: int, request: int, answer_bytes: int) -> bytes | None:
    """The answer of a file system's driver; None if it does not know the request."""
    answer = bytearray(answer_bytes)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, request, answer)
        return bytes(answer)
    return None


def mount_id_of(descriptor: int) -> int:
    """The number of the mount that an open file is on.

    Raises `OSError`, and `ValueError` if the kernel does not say.
    """
    for line in _read(f"/proc/self/fdinfo/{descriptor}").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise ValueError("the kernel names no mount")


def _has_journal(mount: Mount) -> bool | None:
    """Whether an ext3 or ext4 has a journal; None if the kernel does not say."""
    with contextlib.suppress(OSError):
        name = os.path.basename(os.readlink(f"/sys/dev/block/{mount.device}"))
        return _read(f"/sys/fs/ext4/{name}/journal_task").strip() != _NO_JOURNAL
    return None


def _read(path: str) -> str:
    with open(path, errors="surrogateescape") as file:
        return file.read()
