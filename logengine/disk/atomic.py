"""Replaces files as a whole or not at all: temp file, fsync, rename, directory sync.

A writer takes three steps, which many writers can take together:

    prepare          writes everything to a temp file next to the target, and fsyncs it
    publish          gives the temp file the target's name (rename(2) is atomic)
    sync_directory   makes the new name durable

A writer used alone in a `with` takes all three steps when the block ends, or removes its temp
file if the block ends with an exception. What each step guarantees, and on which file systems:
`docs/atomic.md`.

An exception may come at any bytecode: Ctrl-C, or a time limit that a signal handler raises. So
each action is noted before it is done, undoing it twice is harmless, and something always remains
that undoes it: see `ExitGuard`.

Sources: rename(2), fsync(2); Pillai et al., "All File Systems Are Not Created Equal",
OSDI 2014; Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020.
"""

import contextlib
import errno
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from io import DEFAULT_BUFFER_SIZE, BufferedWriter, FileIO, RawIOBase, TextIOWrapper
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from logengine.disk.directory import Directory, StrPath, errors_name
from logengine.disk.exclusive_rename import rename_exclusively
from logengine.disk.exit_guard import ExitGuard
from logengine.disk.file_identity import FileIdentity, give, look_at, status_of, umask
from logengine.disk.links import follow_links, open_parent
from logengine.disk.temp_file import TEMP_PREFIX, TEMP_SUFFIX, TempFile, temp_name_for
from logengine.disk.writes import write_all, write_all_directly
from logengine.errors import AtomicWriteError

DEFAULT_MODE = 0o640
# No other user may read the replacement of a file until it is complete.
_TEMP_MODE = 0o600
_PERMISSIONS_MAX = 0o777
_MODES = ("w", "wt", "wb", "x", "xt", "xb")


def is_temp_name(name: str) -> bool:
    """Whether a file of this name is a writer's temp file, perhaps left by a killed process."""
    return name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX)


class AtomicWriter:
    """Writes a file that appears complete under its name or not at all, whatever happens.

    `mode` is "w" or "wb", which replace an existing file, or "x" or "xb", which never do. `mode`,
    `buffering`, `encoding` (default UTF-8), `errors` and `newline` are those of `open`. Inside the
    `with`, the writer has a file's `write`, and the file itself as `file`. Leaving the block
    normally makes the file durable under its name; leaving it with an exception removes the temp
    file and does not touch the target.

    If `path` is a symbolic link, the file that it leads to is replaced. Its owner, group, mode,
    ACL and extended attributes are kept as far as the process may set them, and access is never
    wider than before; set-user-ID and the like are not kept. `permissions` (0 to 0o777, less the
    umask) replace mode and ACL. A new file has 0640 less the umask. Anything but a regular file
    is refused.

    A relative `path` is resolved when the writer is made. The directory is opened once, and every
    step uses that directory, even if its path leads elsewhere meanwhile. `open_directory` is for
    callers that already hold the directory: then the last part of `path` is not followed if it is
    a link, and with `permissions` an existing file of that name is not inspected.

    Raises `AtomicWriteError` (an `OSError`) naming the path. In a process forked from the one that
    opened it, a writer neither publishes nor removes anything, and its steps raise. Not
    thread-safe.
    """

    def __init__(
        self,
        path: StrPath | bytes | os.PathLike[bytes],
        mode: str = "w",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        permissions: int | None = None,
        open_directory: Callable[[], Directory] | None = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(
                f"mode {mode!r}: expected {', '.join(_MODES)}; a file is always written whole"
            )
        if permissions is not None and not 0 <= permissions <= _PERMISSIONS_MAX:
            raise ValueError(f"permissions {permissions:#o}: expected 0 to 0o777")
        if mode.endswith("b") and (encoding, errors, newline) != (None, None, None):
            raise ValueError("bytes have no encoding, errors or newline; choose mode 'w'")
        if buffering == 0 and not mode.endswith("b"):
            raise ValueError("text is always buffered; choose mode 'wb', or no buffering=0")
        self.path = os.fsdecode(path)
        if open_directory is None and not os.path.isabs(self.path):
            with errors_name(self.path, "find the directory of"):
                self.path = os.path.join(os.getcwd(), self.path)
        self.temp_path: str | None = None
        self.published = False
        self._is_exclusive = mode.startswith("x")
        self._is_binary = mode.endswith("b")
        self._buffering = buffering
        self._encoding = encoding or "utf-8"
        self._errors = errors
        self._newline = newline
        self._permissions = permissions
        self._name = os.path.basename(self.path)
        self._open_directory = open_directory
        self._directory: Directory | None = None
        self._replaced: FileIdentity | None = None
        self._file: IO[Any] | None = None
        self._prepared = False
        self._is_publishing = False
        self.process = 0
        self.leaving: Callable[[], object] | None = None
        self._abandoned: object = None

    def __enter__(self) -> Self:
        leaving = self.leaving and self.leaving()
        if leaving is not None:
            self._abandoned = weakref.ref(leaving, lambda _: self.abort())
            del leaving
        self.open()
        return self

    def _leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.abort()
            return
        self.prepare()
        self.publish()
        self.sync_directory()
        self._abandoned = None

    if TYPE_CHECKING:
        __exit__ = _leave
    else:
        __exit__ = ExitGuard(_leave)

    def __del__(self) -> None:
        if getattr(self, "temp_path", None) is None or self._open_directory is not None:
            return  # the holder of the directory removes the temp file, even after a kill
        self.abort()
        if self.process == os.getpid():
            message = f"{self.path}: a writer was dropped without being published or aborted"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def file(self) -> IO[Any]:
        """The open temp file, of the type that `open` returns."""
        if self._file is None:
            raise ValueError(f"{self.path}: the writer is not open")
        return self._file

    @property
    def directory(self) -> Directory:
        """The target's directory, while it is open. Raises `OSError`."""
        if self._directory is None:
            if self._open_directory is None:
                raise ValueError(f"{self.path}: the writer is not open")
            self._directory = self._open_directory()
        return self._directory

    def close_directory(self) -> None:
        """Closes the directory until the next step, which opens it with `open_directory`.

        For thousands of writers that are prepared at the same time. If `open_directory` then opens
        another directory, that one has no temp file, and the step fails.
        """
        if self._open_directory is not None:
            self._let_go()

    def _let_go(self) -> None:
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def open(self) -> None:
        """Makes the temp file in the target's own directory: only there is a rename atomic."""
        if self._file is not None:
            raise ValueError(f"{self.path}: a writer can be used only once; make another one")
        self.process = os.getpid()
        with FailingStep(self, "make a temp file for"):
            self._find_target()
            self._file = file = self._open_temp()
            if self._buffering != 0:
                self._file = self._buffered(file)

    def _find_target(self) -> None:
        if self._open_directory is not None:
            if self._permissions is not None and not self._is_exclusive:
                return
        elif self._is_exclusive:
            # A link counts as an existing file, even if it is dangling.
            self._directory, self._name = open_parent(self.path)
        else:
            self._directory, self._name = follow_links(self.path)
        if self._is_exclusive:
            if self.directory.is_taken(self._name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            return
        status = status_of(self.directory, self._name)
        if status is not None:
            self._replaced = look_at(self.directory, self._name, status)

    def _open_temp(self) -> FileIO:
        mode = DEFAULT_MODE if self._permissions is None else self._permissions
        if self._replaced is not None:
            mode = _TEMP_MODE
        name = temp_name_for(self._name)
        directory = self.directory
        # Noted before the file exists. `FileIO` calls `os.open` itself, so from the start the file
        # has an owner that closes it.
        self.temp_path = directory.path_of(name)
        opener = partial(os.open, mode=mode, dir_fd=directory.descriptor)
        try:
            file = (FileIO if self._buffering == 0 else TempFile)(name, "xb", opener=opener)
        except FileExistsError:
            self.temp_path = None  # another writer's
            raise
        file.name = self.temp_path
        return file

    def _buffered(self, file: FileIO) -> IO[Any]:
        """Wraps a raw file as `open` does."""
        size = self._buffering if self._buffering > 1 else DEFAULT_BUFFER_SIZE
        buffer = BufferedWriter(file, size)
        if self._is_binary:
            return buffer
        return TextIOWrapper(
            buffer, self._encoding, self._errors, self._newline, self._buffering == 1
        )

    def write(self, data: Any) -> int:
        """Writes all of `data`, text or bytes depending on `mode`; returns its length."""
        with FailingStep(self, "write"):
            if isinstance(self.file, RawIOBase):
                return self.write_buffers([data])
            return int(self.file.write(data))

    def write_buffers(
        self,
        buffers: Sequence[bytes],
        *,
        directly: bool = False,
        pace: Callable[[int], None] | None = None,
    ) -> int:
        """Writes all of `buffers` with as few system calls as possible; returns the bytes written.

        For an unbuffered binary writer (`buffering=0`). `directly` is for a large file that is
        written in one call: it bypasses the page cache; for `pace` see `write_all_directly`.
        """
        with FailingStep(self, "write"):
            if directly:
                return write_all_directly(self.file.fileno(), buffers, pace)
            return write_all(self.file.fileno(), buffers)

    def prepare(self) -> None:
        """Flushes, fsyncs and closes the temp file. The target is still untouched.

        If the fsync fails, the temp file is removed immediately: on Linux a second fsync would
        succeed although the data is lost.
        """
        if self._prepared:
            return
        if self._buffering != 0:
            with FailingStep(self, "write"):
                self.file.flush()  # Python's own buffer, which fsync knows nothing of
        if self._replaced is not None:
            self._give(self.file.fileno(), self._replaced)
        with FailingStep(self, "fsync"):
            os.fsync(self.file.fileno())
            self.file.close()
        self._prepared = True

    def _give(self, descriptor: int, replaced: FileIdentity) -> None:
        permissions = self._permissions
        with FailingStep(self, "keep the owner and the mode of"):
            give(descriptor, replaced, None if permissions is None else permissions & ~umask())

    def publish(self) -> None:
        """Renames the temp file to the target. Durable only after `sync_directory`."""
        if not self._prepared or self.temp_path is None:
            raise ValueError(f"{self.path}: call publish once, after prepare")
        temp_name = os.path.basename(self.temp_path)
        with FailingStep(self, "replace"):
            self._is_publishing = True
            try:
                if self._is_exclusive:
                    rename_exclusively(self.directory, temp_name, self._name)
                else:
                    if self._open_directory is None:
                        self._look_again(temp_name)
                    self.directory.replace(temp_name, self._name)
            except OSError:
                self._is_publishing = False
                raise
        self.temp_path = None
        self.published = True

    def _look_again(self, temp_name: str) -> None:
        """Applies the target's owner, mode and attributes if they changed since `open`."""
        status = status_of(self.directory, self._name)
        if status is None or (self._replaced is not None and self._replaced.is_still(status)):
            return
        self._replaced = look_at(self.directory, self._name, status)
        os.chmod(temp_name, _TEMP_MODE, dir_fd=self.directory.descriptor)
        descriptor = self.directory.open_file(temp_name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            self._give(descriptor, self._replaced)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self) -> None:
        """Makes the target's new name durable.

        If that fails after `publish`, the error's `published` is true: the new content is visible.
        """
        try:
            if self._directory is None:
                with errors_name(self.path, "sync the directory of"):
                    self._directory = self.directory
            self._directory.sync()
        except AtomicWriteError as error:
            error.published = self.published
            raise
        finally:
            self._let_go()

    def abort(self) -> None:
        """Removes the temp file if it is not published yet. Never raises.

        In a process forked meanwhile, only closes that process's copies of the descriptors.
        """
        if self._file is not None:
            # Closing may fail to write the rest of the buffer, which is not needed any more.
            with contextlib.suppress(OSError, ValueError):
                self._file.close()
        self._remove_temp()
        with contextlib.suppress(OSError):
            self._let_go()
        self._abandoned = None

    def _remove_temp(self) -> None:
        if self.temp_path is not None:
            if self.process == os.getpid():
                # On a file system that became read-only it stays; the next start removes it.
                with contextlib.suppress(OSError, ValueError):
                    self._unlink(self.temp_path)
            self.temp_path = None

    def _unlink(self, temp_path: str) -> None:
        try:
            self.directory.unlink(os.path.basename(temp_path))
        except FileNotFoundError:
            # An exception came immediately after the call that renamed it.
            self.published = self._is_publishing
        except OSError:
            # The directory cannot be opened again, for example because descriptors ran out. If
            # the path now leads to another directory, nothing in it has this name.
            os.unlink(temp_path)


class FailingStep(errors_name):
    """One step of a writer, in the process that opened it. A failure removes the temp file."""

    def __init__(self, writer: AtomicWriter, verb: str) -> None:
        super().__init__(writer.path, verb)
        self._writer = writer

    def __enter__(self) -> None:
        process, mine = self._writer.process, os.getpid()
        if process != mine and process:
            error = AtomicWriteError(
                errno.EPERM,
                f"process {process} opened the writer, and process {mine} was forked from it; "
                "make a new writer in this process",
                self._path,
            )
            error.verb = self._verb
            raise error

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self._writer.abort()
            super().__exit__(_type, error, _traceback)
