"""Exclusive access to a data directory whose daemon is stopped, for commands that change it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from logengine.disk.crash_mark import CrashMark, read_boot_id
from logengine.disk.data_directory import lock_data_directory
from logengine.disk.directory import Directory
from logengine.disk.durable_names import DurableNames
from logengine.errors import DataDirectoryLocked

_ADVICE = "stop it, run this again, and start it"


@contextlib.contextmanager
def exclusive_access(data: Path, advice: str = _ADVICE) -> Iterator[DurableNames]:
    """Holds the lock of a data directory and acts as its owner for the duration of the block.

    Files written as root would belong to root, and the daemon could not read them. Yields the
    object through which every change of names in a stream's directory must go. If the block is
    killed or raises, the next daemon does not trust the names that it created. Raises
    `DataDirectoryLocked`, with `advice`, if a daemon has the directory, and `OSError`.
    """
    with _as_owner_of(data), Directory.open(data) as directory:
        try:
            lock = lock_data_directory(directory)
        except DataDirectoryLocked:
            raise DataDirectoryLocked(f"{data} is in use by a running daemon; {advice}") from None
        try:
            crash_mark = CrashMark(directory, read_boot_id())
            crash_mark.begin()
            yield crash_mark.names
            if not (crash_mark.died_before or crash_mark.names.unsynced):
                crash_mark.end()
        finally:
            os.close(lock)


@contextlib.contextmanager
def _as_owner_of(path: Path) -> Iterator[None]:
    owner = os.stat(path)
    user, group = os.geteuid(), os.getegid()
    if user != 0 or owner.st_uid == 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
