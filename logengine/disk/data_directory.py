"""The data directory that a process has locked: which one it is, and whether its path means it.

DATA/.lock      held by the one process that writes in this directory

A volume may be mounted over the directory or away from beneath it, or somebody moves or removes
it. What has been opened goes on being the old one; its path means another one by then, with
records and numbers of its own. Blocking calls.
"""

import contextlib
import errno
import fcntl
import os
import stat
from typing import Self

from logengine.disk.directory import Directory, StrPath, create_directory, errors_name
from logengine.disk.file_system import mount_id_of
from logengine.errors import (
    AtomicWriteError,
    DataDirectoryLocked,
    DataDirectoryReplaced,
    DataDirectoryUnseen,
)

LOCK_NAME = ".lock"


# Why a directory keeps its name: it is a volume's own, or not in our hands.
_NOT_TO_BE_RENAMED = {
    *(errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV, errno.EROFS),
    errno.ENOENT,  # another daemon is about to, and one of the two gets the lock
}


def create_data_directory(path: StrPath) -> None:
    """`create_directory` for a data directory; its name is durable whatever came before.

    Whoever made one that is still empty may have been killed before the sync of its name, and the
    next one's sync have failed: a later one says ok then, although the name is lost. So an empty
    one is given its name once more; where there is none, so is the one that it is to be in.
    Raises `AtomicWriteError`.
    """
    path = os.path.abspath(path)
    _put_back(path)
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if _is_empty_directory(there):
        _name_again(there)
        if there != path:
            _sync_name(there)
    create_directory(path)


def _put_back(path: str) -> None:
    """Gives a directory its name that somebody was killed over in `_name_again`."""
    if os.path.lexists(path) or not os.path.isdir(os.path.dirname(path)):
        return
    above, name = os.path.split(path)
    with (
        errors_name(path, "make the directory"),
        Directory.open(above) as parent,
        contextlib.suppress(FileNotFoundError),
    ):
        parent.replace(_aside(name), name)


def _name_again(path: str) -> None:
    """Gives an empty directory its name once more, so that the next sync is of that."""
    above, name = os.path.split(path)
    with errors_name(path, "make the directory"):
        try:
            parent = Directory.open(above)
            parent.replace(name, _aside(name))
        except OSError as error:
            if error.errno not in _NOT_TO_BE_RENAMED:
                raise
            return
        parent.replace(_aside(name), name)
        parent.close()


def _sync_name(path: str) -> None:
    """Has a directory's name durable, if that is for us to see to."""
    try:
        create_directory(path)
    except AtomicWriteError as error:
        if error.errno not in _NOT_TO_BE_RENAMED:
            raise


def _aside(name: str) -> str:
    return f".{name}.tmp"


def _is_empty_directory(path: str) -> bool:
    """Whether it is an empty directory, and no link to one."""
    with contextlib.suppress(OSError):
        return stat.S_ISDIR(os.lstat(path).st_mode) and not os.listdir(path)
    return False


def lock_data_directory(data: Directory) -> int:
    """Takes the lock that says who writes in `data`; a descriptor, closing it gives it free.

    Raises `DataDirectoryLocked` if a daemon has it, and `OSError`.
    """
    # For reading: a file open for writing keeps its file system from being remounted so.
    lock = data.open_file(LOCK_NAME, os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataDirectoryLocked(
            f"{data} is in use by another logengine daemon; "
            "stop that one, or give this one a directory of its own with --data"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


class LockedDirectory:
    """A data directory, open and locked until it is closed."""

    def __init__(self, directory: Directory, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self._lock_is = _identity(os.fstat(lock))
        self._is = _identity(os.fstat(directory.descriptor))
        self._lock_path = directory.path_of(LOCK_NAME)
        self._is_volume = _is_mounted(directory)

    @classmethod
    def lock(cls, path: StrPath) -> Self:
        """What `path` means now. Raises `DataDirectoryLocked` and `OSError`."""
        directory = Directory.open(path)
        try:
            lock = lock_data_directory(directory)
            try:
                return cls(directory, lock)
            except BaseException:
                os.close(lock)
                raise
        except BaseException:
            directory.close()
            raise

    def why_not_in_place(self) -> DataDirectoryReplaced | DataDirectoryUnseen | None:
        """Why nothing may be committed; None if the path still means this directory.

        What cannot be looked at may well be this one: it is not replaced, it is to be looked at
        again.

        One look at the lock tells both: that the path leads here, and that nobody else could
        have taken a new lock. It costs a microsecond.
        """
        try:
            if _identity(os.stat(self._lock_path)) == self._lock_is:
                return None
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            return self._unseen(error)
        return self._what_happened()

    def why_gone(self) -> DataDirectoryReplaced | DataDirectoryUnseen | None:
        """Why what the path means now is no place for a new directory; None if it may be one."""
        try:
            os.stat(self.directory.path)
        except (FileNotFoundError, NotADirectoryError):
            return self._what_happened()
        except OSError as error:
            return self._unseen(error)
        if self._is_unmounted():
            return DataDirectoryReplaced(
                f"{self.directory.path}: the volume that was mounted there is not any more; "
                "nothing is stored until it is mounted again"
            )
        return None

    def _what_happened(self) -> DataDirectoryReplaced | DataDirectoryUnseen:
        path = self.directory.path
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return DataDirectoryReplaced(
                f"{path} is gone: it was removed or moved away, or its volume is not mounted; "
                "nothing is stored until there is a directory again"
            )
        except OSError as error:
            return self._unseen(error)
        if _identity(found) == self._is:
            what = f"{self._lock_path} was removed or replaced; it is locked once more"
        else:
            what = f"{path} is another directory now: a volume was mounted there, or it was moved"
        return DataDirectoryReplaced(what)

    def _unseen(self, error: OSError) -> DataDirectoryUnseen:
        return DataDirectoryUnseen(
            f"{self.directory.path} cannot be looked at just now: [Errno {error.errno}] "
            f"{error.strerror}; nothing is stored until it can"
        )

    def _is_unmounted(self) -> bool:
        """Whether this was a volume's own directory, and the path means what was beneath it."""
        if not self._is_volume:
            return False
        with contextlib.suppress(OSError), Directory.open(self.directory.path) as now:
            return not _is_mounted(now)
        return False

    def close(self) -> None:
        """Gives the lock free. The directory is closed when nobody works in it any more."""
        os.close(self._lock)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_mounted(directory: Directory) -> bool:
    """Whether something is mounted just here; False where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError), directory.subdirectory("..") as parent:
        return mount_id_of(parent.descriptor) != mount_id_of(directory.descriptor)
    return False
