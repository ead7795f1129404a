"""The data directory that a process has locked: which one it is, and whether its path means it.

DATA/.lock      held by the one process that writes in this directory

A volume may be mounted over the directory or away from beneath it, or somebody moves or removes
it. What has been opened goes on being the old one; its path means another one by then, with
records and numbers of its own. Blocking calls.
"""

import contextlib
import fcntl
import os
from typing import Self

from logengine.directory import Directory, StrPath
from logengine.errors import DataDirectoryLocked, DataDirectoryReplaced
from logengine.file_system import mount_id_of

LOCK_NAME = ".lock"


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

    def why_not_in_place(self) -> DataDirectoryReplaced | None:
        """Why nothing may be committed; None if the path still means this directory.

        One look at the lock tells both: that the path leads here, and that nobody else could
        have taken a new lock. It costs a microsecond.
        """
        try:
            if _identity(os.stat(self._lock_path)) == self._lock_is:
                return None
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            return DataDirectoryReplaced(self._unseen(error))
        return DataDirectoryReplaced(self._what_happened())

    def why_gone(self) -> DataDirectoryReplaced | None:
        """Why what the path means now is no place for a new directory; None if it may be one."""
        if not os.path.exists(self.directory.path):
            return DataDirectoryReplaced(self._what_happened())
        if self._is_unmounted():
            return DataDirectoryReplaced(
                f"{self.directory.path}: the volume that was mounted there is not any more; "
                "nothing is stored until it is mounted again"
            )
        return None

    def _what_happened(self) -> str:
        path = self.directory.path
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return (
                f"{path} is gone: it was removed or moved away, or its volume is not mounted; "
                "nothing is stored until there is a directory again"
            )
        except OSError as error:
            return self._unseen(error)
        if _identity(found) == self._is:
            return f"{self._lock_path} was removed or replaced; it is locked once more"
        return f"{path} is another directory now: a volume was mounted there, or it was moved"

    def _unseen(self, error: OSError) -> str:
        path = self.directory.path
        return f"{path} cannot be looked at: {error.strerror}; nothing is stored until it can"

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
