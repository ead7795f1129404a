"""Whether the file system of an open directory is known to break the durability promise.

Reads /proc and /sys, never the disk. What cannot be determined is not a risk. Blocking calls.
"""

import contextlib
import os

from logengine.disk.directory import Directory
from logengine.disk.mounts import Mount, base_of, mount_called, parse_mounts, risks_of

_MOUNTS = "/proc/self/mountinfo"
_NO_JOURNAL = "<none>"


def risks_at(directory: Directory) -> list[str]:
    """The known risks to the durability of data in `directory`, one reason each."""
    with contextlib.suppress(OSError, ValueError):
        mounts = parse_mounts(_read(_MOUNTS))
        mount = mount_called(mounts, mount_id_of(directory.descriptor))
        if mount is not None:
            return risks_of(mounts, mount, has_journal=_has_journal(base_of(mounts, mount)))
    return []


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
