"""Whether a spool can be trusted: nobody else could have put anything into it, or can.

The records of a spool are sent under the user of the process that finds them, and its files are
created and removed with that user's rights. So the directory of spools must be the user's own or
root's, and nobody else may write to it, except that anybody may make a directory of their own there
if the sticky bit is set, as in `/tmp`. The directory of a producer must be the user's own, and so
must everything in it. Once that holds, nobody but the user and root can change it. What the user
has put in place of a segment is damage, which the spool repairs.

Checks the directories themselves and not their parents: whoever may write to a parent can only
replace the whole spool, and the replacement is checked like any other. Blocking calls.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from logengine.errors import UnsafeSpool

LOCK_NAME = ".lock"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_EXPECTED = "expected this user or root"


def check_spools(spools: Path) -> None:
    """Checks a directory of spools, if it exists. Raises `UnsafeSpool`, and `OSError`."""
    try:
        link, found = os.lstat(spools), os.stat(spools)
    except FileNotFoundError:
        return
    for each in (link, found):
        if each.st_uid not in (0, os.geteuid()):
            raise _unsafe(spools, f"it belongs to user {each.st_uid}, {_EXPECTED}")
    if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        raise _unsafe(
            spools,
            "other users may write to it; run `chmod go-w` on it, or use a new directory in it",
        )


def check_spool(spool: Path) -> None:
    """Checks the directory of one producer and all that is in it, if it exists.

    Raises `UnsafeSpool`, and `OSError`.
    """
    try:
        found = os.lstat(spool)
    except FileNotFoundError:
        return
    _check_own(spool, found)
    if stat.S_ISLNK(found.st_mode):
        raise _unsafe(spool, "it is a link; remove it")
    for path, found in _entries(spool):
        _check_own(path, found)
        if stat.S_ISLNK(found.st_mode):
            # Files would be created and removed where it leads to, even if the user made it.
            if path.name == LOCK_NAME or path.is_dir():
                raise _unsafe(path, "it is a link; remove it")
        elif not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            raise _unsafe(path, "it is neither a regular file nor a directory; remove it")
        if stat.S_ISDIR(found.st_mode):
            for inner, its in _entries(path):
                _check_own(inner, its)


def is_own(spool: Path) -> bool:
    """Whether `spool` exists and belongs to this user, so that it may hold the user's records."""
    try:
        return os.lstat(spool).st_uid == os.geteuid()
    except OSError:
        return False


def _entries(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # its client has just removed it
            yield Path(entry.path), found


def _check_own(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise _unsafe(path, f"it belongs to user {found.st_uid}, {_EXPECTED}")
    if found.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(found.st_mode):
        raise _unsafe(path, "other users may write to it; run `chmod go-w` on it")


def _unsafe(path: Path, reason: str) -> UnsafeSpool:
    return UnsafeSpool(f"{path} is not safe as a spool: {reason}")
