"""Directories, whose names and whose own names are made durable.

Sources: fsync(2), mkdir(2).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from logengine.errors import AtomicWriteError

StrPath = str | os.PathLike[str]


def sync_directory(path: StrPath) -> None:
    """Makes the names in directory `path` durable. Raises `AtomicWriteError`."""
    with errors_name(path, "sync the directory"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            # xfs that has shut itself down (its log failed) lets go of what was to be logged,
            # and then says ok to the fsync of a directory, but never to a look at it. Without
            # this look, 29 of 300 shutdowns under load lost a name that was synced.
            os.fstat(descriptor)
        finally:
            os.close(descriptor)


def sync_or_note(path: StrPath, unsynced: set[str]) -> None:
    """`sync_directory`; where that fails, the name of `path` is among the `unsynced` by then."""
    try:
        sync_directory(path)
    except BaseException:
        unsynced.add(os.path.basename(path))
        raise


def create_directory(path: StrPath, mode: int = 0o750) -> None:
    """Makes directory `path` and what is missing above it, and its name durable.

    A file in a directory whose own name was never synced is lost with it in a power cut,
    so the parent is synced even if the directory is there already: whoever made it may
    have been killed, or have failed, before the sync. Raises `AtomicWriteError`.
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
        # A second fsync could say ok although the name is lost: it is to be made anew.
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise


def create_directories(
    parent: StrPath, names: Sequence[str], mode: int = 0o750
) -> dict[str, AtomicWriteError]:
    """Makes directories in `parent`, and their names durable by one sync; gives who failed.

    An empty one that is there already is made anew: the sync of its name may have failed,
    and the next one could say ok although the name is lost. One that is not empty was
    durable before anything was put into it. Not to be called twice at once for the same
    parent: a sync that fails for one caller may have lost what another one made.
    """
    failed: dict[str, AtomicWriteError] = {}
    for name in names:
        path = os.path.join(parent, name)
        try:
            with errors_name(path, "make the directory"):
                permissions = permissions_of(path) or mode
                _remove_if_empty(path)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, permissions)
        except AtomicWriteError as error:
            failed[name] = error
    try:
        sync_directory(parent)
    except AtomicWriteError as error:
        for name in names:
            failed.setdefault(name, error)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(parent, name))
    return failed


def _remove_if_empty(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def permissions_of(path: str) -> int | None:
    """The permission bits of what is at `path`, or None if there is nothing."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


class errors_name:  # noqa: N801 - a context manager used like a function
    """Turns an `OSError` within into an `AtomicWriteError` that names `path` and what failed.

    A class, because a generator's costs are seen in the latency of a single record.
    """

    def __init__(self, path: StrPath, verb: str) -> None:
        self._path = path
        self._verb = verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, AtomicWriteError):
            raise AtomicWriteError.of(error, os.fspath(self._path), self._verb) from error
