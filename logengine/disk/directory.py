"""Directories: held by a descriptor; makes their names and the names in them durable.

A path may lead to another directory later: a volume is mounted over it, or somebody moves the
directory away and makes a new one. A program that continues by path then overwrites what is
stored there. A `Directory` stays the one that was opened.

Sources: fsync(2), mkdir(2), openat(2).
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from logengine.disk.regular_file import (
    check_kind,
    check_subdirectory,
    open_regular_file,
    read_whole,
)
from logengine.errors import AtomicWriteError

StrPath = str | os.PathLike[str]

# btrfs omits a name that is replaced all the time from at most one listing in 160.
_LISTINGS_MAX = 4
_TICK_NS = 10_000_000  # of a kernel with 100 Hz, the slowest

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Directory:
    """An open directory. Every name is looked up in this directory, never by its path.

    `path` is the path that it was opened by, for messages only. The directory is closed by
    `close`, or when the last reference to it is gone: no thread ever uses a descriptor number that
    was reused for another file. Methods raise `OSError` with the whole path in it; those that say
    so raise `AtomicWriteError`.
    """

    __slots__ = ("_held", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._held: list[int] = []

    @classmethod
    def open(cls, path: StrPath) -> Self:
        """Opens the directory that `path` leads to now."""
        return cls._at(path, _FLAGS)

    @classmethod
    def open_itself(cls, path: StrPath) -> Self:
        """Opens the directory at `path`, as `open`, but raises `UnexpectedFile` for a link."""
        return cls._at(path, _FLAGS | os.O_NOFOLLOW)

    @classmethod
    def _at(cls, path: StrPath, flags: int) -> Self:
        directory = cls(os.fspath(path))
        try:
            directory.hold(path, flags)
        except NotADirectoryError:
            check_kind(None, directory.path, stat.S_IFDIR, directory.path)
            raise
        return directory

    def hold(self, path: StrPath, flags: int, *, dir_fd: int | None = None) -> None:
        """Opens the descriptor of this object. Raises `OSError`.

        This is one call into C. So when an exception comes between two instructions, as with
        Ctrl-C, the descriptor is either stored or not yet open.
        """
        self._held.extend(map(partial(os.open, flags=flags | os.O_CLOEXEC, dir_fd=dir_fd), [path]))

    def subdirectory(self, name: str) -> "Directory":
        """Opens the directory `name` in this one.

        Raises `UnexpectedFile` if it is a link or another kind of file, or if it belongs to
        neither this directory's owner nor root nor the user of this process.
        """
        try:
            directory = self._opened(name, _FLAGS | os.O_NOFOLLOW)
        except NotADirectoryError:
            check_kind(self.descriptor, name, stat.S_IFDIR, self.path_of(name))
            raise
        check_subdirectory(directory.descriptor, self.descriptor, directory.path)
        return directory

    def opened_again(self) -> "Directory":
        """Opens the same directory once more; the caller closes it."""
        return self._opened(os.curdir, _FLAGS, self.path)

    def walk(self, path: str) -> "Directory":
        """Opens the directory at `path`, relative to this one; follows links."""
        return self._opened(path, _FLAGS)

    def place_of(self, name: str) -> "Directory":
        """Opens `name`, whatever its type, for inspection only: it cannot be read or listed."""
        return self._opened(name, os.O_PATH | os.O_NOFOLLOW)

    def _opened(self, name: str, flags: int, path: str | None = None) -> "Directory":
        directory = Directory(path or self.path_of(name))
        try:
            directory.hold(name, flags, dir_fd=self.descriptor)
        except OSError as error:
            raise self._named(error, name) from None
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # No caller is left to report a failure to.
        with contextlib.suppress(OSError):
            self.close()

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"Directory({self.path!r})"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(self.path)

    @property
    def descriptor(self) -> int:
        """The open file descriptor. Raises `ValueError` once it is closed."""
        if not self._held:
            raise ValueError(f"{self.path}: the directory is closed")
        return self._held[0]

    def close(self) -> None:
        """Closes it; a second call does nothing."""
        if self._held:
            # Removed and closed within one call into C, for the same reason as in `hold`.
            next(map(os.close, iter(self._held.pop, None)))

    def path_of(self, name: str) -> str:
        """The path of `name`, for messages."""
        return os.path.join(self.path, name)

    def names(self) -> list[str]:
        """The names in it, in no particular order."""
        # Opened again: a listing's position belongs to the open file, which threads would share.
        with self.opened_again() as mine:
            try:
                return os.listdir(mine.descriptor)
            except OSError as error:
                raise self._named(error, "") from None

    @contextlib.contextmanager
    def entries(self) -> Iterator[Iterator["os.DirEntry[str]"]]:
        """The entries in it, as from `os.scandir`."""
        with self.opened_again() as mine, os.scandir(mine.descriptor) as entries:
            yield entries

    def open_file(self, name: str, flags: int, mode: int = 0o640) -> int:
        """Opens the regular file `name`, as `open_regular_file` does, and raises the same."""
        return open_regular_file(self.descriptor, name, flags, mode, self.path_of(name))

    def read_file(self, name: str, bytes_max: int) -> bytes:
        """All bytes of the regular file `name`.

        Raises `UnexpectedFile` if there are more than `bytes_max`, and as `open_file`.
        """
        descriptor = self.open_file(name, os.O_RDONLY)
        try:
            return read_whole(descriptor, bytes_max, self.path_of(name))
        finally:
            os.close(descriptor)

    def is_file(self, name: str) -> bool:
        """Whether `name` is a regular file, and not a link to one."""
        try:
            return stat.S_ISREG(self.stat(name, follow_links=False).st_mode)
        except FileNotFoundError:
            return False

    def stat(self, name: str, *, follow_links: bool = True) -> os.stat_result:
        """The `os.stat` of `name`."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=follow_links)
        except OSError as error:
            raise self._named(error, name) from None

    def has(self, name: str) -> bool:
        """Whether `name` exists; a dangling link does not."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def is_taken(self, name: str) -> bool:
        """Whether `name` exists, even as a dangling link."""
        try:
            self.stat(name, follow_links=False)
        except FileNotFoundError:
            return False
        return True

    def permissions_of(self, name: str) -> int | None:
        """The permission bits of `name`, or None if it does not exist."""
        try:
            return stat.S_IMODE(self.stat(name).st_mode)
        except FileNotFoundError:
            return None

    def set_time(self, name: str, time_ns: int) -> None:
        """Sets the time of the file `name`, in nanoseconds since the epoch; follows no link."""
        try:
            os.utime(name, ns=(time_ns, time_ns), dir_fd=self.descriptor, follow_symlinks=False)
        except OSError as error:
            raise self._named(error, name) from None

    def replace(self, source: str, target: str) -> None:
        """Renames `source` to `target`, and replaces an existing `target`."""
        descriptor = self.descriptor
        try:
            os.replace(source, target, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except OSError as error:
            raise self._named(error, target) from None

    def link(self, source: str, target: str, within: "Directory | None" = None) -> None:
        """Gives the file `source`, or a link itself, another name: `target`, which must be free.

        The other name is in the directory `within`, by default in this one.
        """
        where = within or self
        try:
            os.link(
                source,
                target,
                src_dir_fd=self.descriptor,
                dst_dir_fd=where.descriptor,
                follow_symlinks=False,
            )
        except OSError as error:
            raise _at_path(error, where.path_of(target)) from None

    def move(self, source: str, target: str, within: "Directory") -> None:
        """Moves `source` to the directory `within`, and replaces an existing `target` there."""
        try:
            os.rename(source, target, src_dir_fd=self.descriptor, dst_dir_fd=within.descriptor)
        except OSError as error:
            raise _at_path(error, within.path_of(target)) from None

    def unlink(self, name: str) -> None:
        """Removes the name `name` of a file."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except OSError as error:
            raise self._named(error, name) from None

    def make(self, name: str, mode: int) -> None:
        """Makes a directory called `name`."""
        try:
            os.mkdir(name, mode, dir_fd=self.descriptor)
        except OSError as error:
            raise self._named(error, name) from None

    def remove(self, name: str) -> None:
        """Removes the empty directory called `name`."""
        try:
            os.rmdir(name, dir_fd=self.descriptor)
        except OSError as error:
            raise self._named(error, name) from None

    def sync(self) -> None:
        """Makes the names in it durable. Raises `AtomicWriteError`."""
        descriptor = self.descriptor
        with errors_name(self.path, "sync the directory"):
            os.fsync(descriptor)
            # xfs that has shut down (its log failed) discards what it had to log. The fsync of a
            # directory then succeeds, but fstat always fails. Without this fstat, 29 of 300
            # shutdowns under load lost a name that was synced.
            os.fstat(descriptor)

    def _named(self, error: OSError, name: str) -> OSError:
        return _at_path(error, self.path_of(name) if name else self.path)


def _at_path(error: OSError, path: str) -> OSError:
    """The error of a call with a name in an open directory, with the whole path in it."""
    error.filename = path
    del error.filename2  # if set to None, it would be printed
    return error


# What read functions accept: the daemon has its directories open, readers use paths.
AnyDirectory = Path | Directory


@contextlib.contextmanager
def opened(
    directory: AnyDirectory, open_path: Callable[[Path], Directory] = Directory.open
) -> Iterator[Directory]:
    """Yields the directory itself, or the one opened from its path until the block ends."""
    if isinstance(directory, Directory):
        yield directory
        return
    with open_path(directory) as mine:
        yield mine


def opened_stream(directory: AnyDirectory) -> contextlib.AbstractContextManager[Directory]:
    """As `opened`, for the directory of a stream, which is never a link."""
    return opened(directory, Directory.open_itself)


def directory_at(directory: AnyDirectory) -> Directory:
    """Returns the directory itself, or opens the one at its path. Raises `OSError`."""
    return directory if isinstance(directory, Directory) else Directory.open(directory)


def names_during_changes(directory: AnyDirectory) -> set[str]:
    """The names in a stream's directory that others may be changing. Raises `OSError`.

    btrfs and tmpfs omit a name from a listing if its file is replaced meanwhile: the name moves to
    a new place, after the last one that existed when the directory was opened. So a directory
    that changes is listed more than once. The result may contain names removed meanwhile.
    """
    names: set[str] = set()
    with opened_stream(directory) as within:
        for _ in range(_LISTINGS_MAX):
            before_ns = os.fstat(within.descriptor).st_ctime_ns
            names.update(within.names())
            after_ns = os.fstat(within.descriptor).st_ctime_ns
            # Kernels before 6.13 give all changes within one tick of the clock the same time.
            if before_ns == after_ns < time.time_ns() - _TICK_NS:
                break
    return names


def sync_directory(path: StrPath) -> None:
    """Makes the names in directory `path` durable. Raises `AtomicWriteError`."""
    with errors_name(path, "sync the directory"), Directory.open(path) as directory:
        directory.sync()


def create_directory(path: StrPath, mode: int = 0o750) -> None:
    """Makes directory `path` and its missing parents, and makes its name durable.

    A power cut loses a directory whose name was never synced, with all files in it. So the parent
    is synced even if the directory exists: the process that made it may have been killed, or have
    failed, before the sync. Raises `AtomicWriteError`.
    """
    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        create_directory(parent, mode)
    made = False
    with errors_name(path, "make the directory"), contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
        made = True
    try:
        sync_directory(parent)
    except AtomicWriteError:
        # A second fsync could succeed although the name is lost: the directory must be made again.
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise


def create_directories(
    parent: AnyDirectory, names: Sequence[str], mode: int = 0o750
) -> dict[str, AtomicWriteError]:
    """Makes directories in `parent`, durable with one sync; returns the failures by name.

    An existing empty directory is made again: the sync of its name may have failed, and the next
    sync could succeed although the name is lost. A directory that is not empty was durable before
    anything was put into it. Never call this concurrently for the same parent: a sync that fails
    for one caller may have lost what the other one made.
    """
    failed: dict[str, AtomicWriteError] = {}
    with opened(parent) as within:
        for name in names:
            try:
                with errors_name(within.path_of(name), "make the directory"):
                    permissions = within.permissions_of(name) or mode
                    _remove_if_empty(within, name)
                    with contextlib.suppress(FileExistsError):
                        within.make(name, permissions)
            except AtomicWriteError as error:
                failed[name] = error
        try:
            within.sync()
        except AtomicWriteError as error:
            for name in names:
                failed.setdefault(name, error)
                with contextlib.suppress(OSError):
                    within.remove(name)
    return failed


def _remove_if_empty(parent: Directory, name: str) -> None:
    try:
        parent.remove(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


class errors_name:  # noqa: N801 - a context manager used like a function
    """Turns an `OSError` in the block into an `AtomicWriteError` that names `path` and `verb`.

    A class, because the cost of a generator shows in the latency of a single record.
    """

    def __init__(self, path: StrPath, verb: str) -> None:
        self._path = path
        self._verb = verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, AtomicWriteError):
            raise AtomicWriteError.of(error, os.fspath(self._path), self._verb) from error
