"""Exclusive access to a data directory whose daemon is stopped, for commands that change it."""

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from logengine.disk.crash_mark import CrashMark, read_boot_id
from logengine.disk.data_directory import lock_data_directory, open_data_directory
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
    with open_data_directory(data) as directory, _as_owner_of(directory):
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
def _as_owner_of(directory: Directory) -> Iterator[None]:
    """If this is root, acts as the directory's owner, with the groups of that user and no others.

    So nothing that the owner puts there, such as a link, makes root read or change what the owner
    could not.
    """
    owner = os.fstat(directory.descriptor)
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group, groups = _groups_of(owner)
    with contextlib.ExitStack() as stack:
        stack.callback(os.setgroups, os.getgroups())
        os.setgroups(groups)
        stack.callback(os.setegid, os.getegid())
        os.setegid(group)
        stack.callback(os.seteuid, os.geteuid())
        os.seteuid(owner.st_uid)
        yield


def _groups_of(owner: os.stat_result) -> tuple[int, list[int]]:
    """The group for new files, and all groups of the user who owns a directory.

    New files get the directory's group if the user is a member.
    """
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:  # for example, of a container
        return owner.st_gid, []
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return (owner.st_gid if owner.st_gid in groups else user.pw_gid), groups
