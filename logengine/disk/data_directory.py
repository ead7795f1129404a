"""The data directory that a process has locked, and whether its path still leads to it.

DATA/.lock      held by the one process that writes in this directory

A volume may be mounted over the directory or unmounted, or somebody may move or remove the
directory. The open directory stays the old one, but its path then leads to another one, with its
own records and numbers. Blocking calls.
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
    UnexpectedFile,
)

LOCK_NAME = ".lock"


# Errors for which a directory keeps its name: it is a mount point, or not ours to rename.
_NOT_TO_BE_RENAMED = {
    *(errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV, errno.EROFS),
    errno.ENOENT,  # another daemon is renaming it; one of the two gets the lock
}


def create_data_directory(path: StrPath) -> None:
    """`create_directory` for a data directory; its name is durable whatever happened before.

    The process that made a still empty directory may have been killed before the sync of its name,
    and the sync of the next process may have failed: a later sync then succeeds although the name
    is lost. So an empty directory is renamed away and back; if it does not exist yet, so is its
    nearest existing parent if that is empty. Raises `AtomicWriteError`.
    """
    path = os.path.abspath(path)
    _put_back(path)
    there = path
    while not _is_there(there):
        there = os.path.dirname(there)
    if _is_empty_directory(there):
        _name_again(there)
        if there != path:
            _sync_name(there)
    create_directory(path)


def _put_back(path: str) -> None:
    """Renames a directory back if a process was killed in `_name_again`."""
    if _is_there(path) or not os.path.isdir(os.path.dirname(path)):
        return
    above, name = os.path.split(path)
    with (
        errors_name(path, "make the directory"),
        Directory.open(above) as parent,
        contextlib.suppress(FileNotFoundError),
    ):
        parent.replace(_aside(name), name)


def _name_again(path: str) -> None:
    """Renames an empty directory away and back, so that the next sync covers its name."""
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
    """Makes a directory's name durable, unless that is not ours to do."""
    try:
        create_directory(path)
    except AtomicWriteError as error:
        if error.errno not in _NOT_TO_BE_RENAMED:
            raise


def _aside(name: str) -> str:
    return f".{name}.tmp"


def _is_there(path: str) -> bool:
    """Whether `path` exists, even as a link. Raises `AtomicWriteError` if that is not known now."""
    with errors_name(path, "make the directory"):
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno not in (*_NOT_TO_BE_RENAMED, errno.ENOTDIR):
                raise
            return False
    return True


def _is_empty_directory(path: str) -> bool:
    """Whether `path` is an empty directory that may be ours, and not a link to one.

    Raises `AtomicWriteError` if that cannot be known now: the next step puts a file into an empty
    one, and then nothing shows that its name may be lost.
    """
    with errors_name(path, "make the directory"):
        try:
            return stat.S_ISDIR(os.lstat(path).st_mode) and not os.listdir(path)
        except OSError as error:
            if error.errno not in _NOT_TO_BE_RENAMED:
                raise
            return False


def open_data_directory(path: StrPath) -> Directory:
    """Opens the directory at `path`. Raises `UnexpectedFile` and `OSError`.

    It may be a link, which administrators use to move a directory to another volume. But a link of
    somebody else is not followed: whoever made it could lead root to the directory of another user.
    """
    directory = Directory.open(path)
    try:
        link = os.lstat(path)
        trusted = (0, os.geteuid(), os.fstat(directory.descriptor).st_uid)
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in trusted:
            raise UnexpectedFile(
                errno.EPERM,
                f"it is a symbolic link of user {link.st_uid} to a directory of user {trusted[2]}; "
                "name that directory itself",
                os.fspath(path),
            )
    except BaseException:
        directory.close()
        raise
    return directory


def lock_data_directory(data: Directory) -> int:
    """Takes the write lock of `data`; returns a descriptor, and closing that releases the lock.

    Raises `DataDirectoryLocked` if a daemon has the lock, and `OSError`.
    """
    # For reading: a file open for writing prevents a read-only remount of its file system.
    lock = data.open_file(LOCK_NAME, os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataDirectoryLocked(
            f"{data} is in use by another logengine daemon; "
            "stop that daemon, or give this one another directory with --data"
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
        """Opens and locks the directory at `path`. Raises `DataDirectoryLocked` and `OSError`."""
        directory = open_data_directory(path)
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
        """Why nothing may be committed; None if the path still leads to this directory.

        A path that cannot be checked may well lead here: it counts as unseen, not as replaced,
        and is to be checked again.

        One stat of the lock shows both that the path leads here and that no other process could
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
        """Why no new data directory may be begun at the path; None if one may be."""
        try:
            os.stat(self.directory.path)
        except (FileNotFoundError, NotADirectoryError):
            return self._what_happened()
        except OSError as error:
            return self._unseen(error)
        if self._is_unmounted():
            return DataDirectoryReplaced(
                f"{self.directory.path}: the volume that was mounted there is no longer mounted; "
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
                "nothing is stored until the directory exists again"
            )
        except OSError as error:
            return self._unseen(error)
        if _identity(found) == self._is:
            what = f"{self._lock_path} was removed or replaced; it is locked again"
        else:
            what = f"{path} is another directory now: a volume was mounted there, or it was moved"
        return DataDirectoryReplaced(what)

    def _unseen(self, error: OSError) -> DataDirectoryUnseen:
        return DataDirectoryUnseen(
            f"{self.directory.path} cannot be checked now: [Errno {error.errno}] "
            f"{error.strerror}; nothing is stored until it can be"
        )

    def _is_unmounted(self) -> bool:
        """Whether this was a mount point, and the path now leads to the directory beneath it."""
        if not self._is_volume:
            return False
        with contextlib.suppress(OSError), Directory.open(self.directory.path) as now:
            return not _is_mounted(now)
        return False

    def close(self) -> None:
        """Releases the lock. The directory is closed when its last user is gone."""
        os.close(self._lock)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_mounted(directory: Directory) -> bool:
    """Whether the directory is a mount point; False if the kernel does not say."""
    with contextlib.suppress(OSError, ValueError), directory.walk(os.pardir) as parent:
        return mount_id_of(parent.descriptor) != mount_id_of(directory.descriptor)
    return False
