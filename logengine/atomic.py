"""Files that are replaced as a whole or not at all: temp, fsync, replace, directory sync.

A writer goes through three steps, which many writers can share:

    prepare          everything is written to a temp file beside the target, and fsynced
    publish          the temp takes the target's name (rename(2) is atomic)
    sync_directory   the new name is on the disk

Used alone in a `with`, a writer does all three when the block ends, and removes its temp
when the block ends by an exception.

Sources: rename(2), fsync(2); Pillai et al., "All File Systems Are Not Created Equal",
OSDI 2014; Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020.
"""

import asyncio
import contextlib
import io
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from aiofiles.threadpool import wrap

from logengine.directory import Directory, StrPath, errors_name
from logengine.errors import AtomicWriteError
from logengine.writes import write_all, write_all_directly

DEFAULT_MODE = 0o640
# A temp begins with a dot, so that no glob of the final names meets it.
TEMP_PREFIX = "."
TEMP_SUFFIX = ".tmp"

Result = TypeVar("Result")


def is_temp_name(name: str) -> bool:
    """Whether a file of this name is a temp of a writer, perhaps of one that was killed."""
    return name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX)


class AtomicWriter:
    """Writes a file that is complete under its name, or not there, whatever happens.

    `mode` ("w", "wb"), `buffering`, `encoding`, `errors` and `newline` are those of
    `open`. `permissions` default to those of the file being replaced, else 0640 less the
    umask. Inside the `with`, the writer has the `write` of a file; leaving it normally
    makes the file durable under its name, leaving it by an exception removes the temp and
    leaves the target untouched. Raises `AtomicWriteError` (an `OSError`) naming the path.

    The directory is opened once, and every step is taken in that one, whatever its path comes
    to mean meanwhile. `open_directory` opens it where the caller has a better hold of it than
    its path. Not for use by two threads at once.
    """

    def __init__(
        self,
        path: StrPath,
        mode: str = "w",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        permissions: int | None = None,
        open_directory: Callable[[], Directory] | None = None,
    ) -> None:
        if mode not in ("w", "wb", "wt"):
            raise ValueError(
                f"mode {mode!r}: expected 'w', 'wt' or 'wb'; a file is always written whole"
            )
        self.path = os.fspath(path)
        self.temp_path: str | None = None
        parent, self._name = os.path.split(self.path)
        self._open_directory = open_directory or partial(Directory.open, parent or ".")
        self._directory: Directory | None = None
        self._open_arguments: dict[str, Any] = {
            "mode": mode,
            "buffering": buffering,
            "encoding": encoding or (None if "b" in mode else "utf-8"),
            "errors": errors,
            "newline": newline,
        }
        self._permissions = permissions
        self._file: IO[Any] | None = None
        self._prepared = False
        self.published = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
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

    @property
    def file(self) -> IO[Any]:
        """The open temp file, as `open` gives it."""
        if self._file is None:
            raise ValueError(f"{self.path}: the writer is not open")
        return self._file

    def open(self) -> None:
        """Makes the temp file, in the target's own directory: only there is a rename atomic."""
        if self._file is not None:
            raise ValueError(f"{self.path}: a writer is used once; make another one")
        # Long names stay within NAME_MAX; the random part alone makes the temp unique.
        temp_name = f"{TEMP_PREFIX}{self._name[:200]}.{secrets.token_hex(8)}{TEMP_SUFFIX}"
        with _FailingStep(self, "make a temp file for"):
            temp_path = self.directory.path_of(temp_name)
            self._file = open(temp_path, opener=self._open_temp, **self._open_arguments)  # noqa: SIM115

    @property
    def directory(self) -> Directory:
        """The target's directory, opened now if it is not. Raises `OSError`."""
        if self._directory is None:
            self._directory = self._open_directory()
        return self._directory

    def close_directory(self) -> None:
        """Closes the directory; the next step opens it again.

        For thousands of writers that are prepared at once. If the path means another directory
        by then, there is no temp in that one, and the step fails.
        """
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def _open_temp(self, temp_path: str, _flags: int) -> int:
        permissions = self._permissions
        replaced = None if permissions is not None else self.directory.permissions_of(self._name)
        descriptor = self.directory.open_file(
            os.path.basename(temp_path),
            os.O_WRONLY | os.O_CREAT | os.O_EXCL,
            DEFAULT_MODE if permissions is None else permissions,
        )
        self.temp_path = temp_path
        if replaced is not None:
            try:
                os.fchmod(descriptor, replaced)
            except OSError:
                os.close(descriptor)
                raise
        return descriptor

    def write(self, data: Any) -> int:
        """Writes all of `data`, text or bytes as `mode` says; how much that was."""
        with _FailingStep(self, "write"):
            if isinstance(self.file, io.RawIOBase):
                return self.write_buffers([data])
            return int(self.file.write(data))

    def write_buffers(
        self,
        buffers: Sequence[bytes],
        *,
        directly: bool = False,
        spend: Callable[[int], None] | None = None,
    ) -> int:
        """Writes all of `buffers` with as few system calls as it takes; how many bytes.

        For an unbuffered writer of bytes (`buffering=0`). `directly` is for a large file,
        written at once: past the page cache, and with `spend` as `write_all_directly` says.
        """
        with _FailingStep(self, "write"):
            if directly:
                return write_all_directly(self.file.fileno(), buffers, spend)
            return write_all(self.file.fileno(), buffers)

    def prepare(self) -> None:
        """Writes out and fsyncs the temp, and closes it. The target is still untouched.

        When the fsync fails, the temp is removed at once: on Linux a second fsync would
        say ok although the data is lost.
        """
        if self._prepared:
            return
        with _FailingStep(self, "write"):
            self.file.flush()  # Python's own buffer, which fsync knows nothing of
        with _FailingStep(self, "fsync"):
            os.fsync(self.file.fileno())
            self.file.close()
        self._prepared = True

    def publish(self) -> None:
        """Gives the temp the target's name. Durable only after `sync_directory`."""
        if not self._prepared or self.temp_path is None:
            raise ValueError(f"{self.path}: publish comes after prepare, and once")
        with _FailingStep(self, "replace"):
            self.directory.replace(os.path.basename(self.temp_path), self._name)
        self.temp_path = None
        self.published = True

    def sync_directory(self) -> None:
        """Makes the target's new name durable."""
        try:
            with errors_name(self.path, "sync the directory of"):
                self.directory.sync()
        finally:
            self.close_directory()

    def abort(self) -> None:
        """Removes the temp, if the file is not published yet. Never raises."""
        if self._file is not None:
            # The buffer's rest may fail to be written here; nobody wants it any more.
            with contextlib.suppress(OSError, ValueError):
                self._file.close()
        self._remove_temp()
        with contextlib.suppress(OSError):
            self.close_directory()

    def _remove_temp(self) -> None:
        if self.temp_path is not None:
            # On a file system gone read-only it stays; the next start removes it.
            with contextlib.suppress(OSError):
                self.directory.unlink(os.path.basename(self.temp_path))
            self.temp_path = None


class AsyncAtomicWriter:
    """`AtomicWriter` for asyncio, on aiofiles: each step runs in a thread.

    Leaving the `async with` by an exception or by cancellation removes the temp and
    leaves the target untouched. When the cancellation comes after the replace, the file
    is new and complete, and the directory sync is waited for before the cancellation
    goes on. `executor` None means the loop's own.
    """

    def __init__(
        self,
        path: StrPath,
        mode: str = "w",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        permissions: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._writer = AtomicWriter(
            path,
            mode,
            buffering=buffering,
            encoding=encoding,
            errors=errors,
            newline=newline,
            permissions=permissions,
        )
        self._executor = executor
        self._file: Any = None

    @property
    def path(self) -> str:
        """The target."""
        return self._writer.path

    @property
    def temp_path(self) -> str | None:
        """The temp file, while there is one."""
        return self._writer.temp_path

    async def __aenter__(self) -> Self:
        try:
            await self._run(self._writer.open)
        except BaseException:
            await self.abort()
            raise
        self._file = wrap(self._writer.file, loop=None, executor=self._executor)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            await self.abort()
            return
        try:
            await self.prepare()
            await self.publish()
        except BaseException:
            if self._writer.published:
                await self.sync_directory()
            else:
                await self.abort()
            raise
        await self.sync_directory()

    async def write(self, data: Any) -> int:
        """Writes all of `data`, text or bytes as `mode` says; how much that was."""
        if isinstance(self._writer.file, io.RawIOBase):
            return await self._run(self._writer.write, data)
        try:
            return int(await _finished(self._file.write(data)))
        except OSError as error:
            await self.abort()
            raise AtomicWriteError.of(error, self.path, "write") from error

    async def prepare(self) -> None:
        """Writes out and fsyncs the temp. The target is still untouched."""
        await self._run(self._writer.prepare)

    async def publish(self) -> None:
        """Gives the temp the target's name. Durable only after `sync_directory`."""
        await self._run(self._writer.publish)

    async def sync_directory(self) -> None:
        """Makes the target's new name durable."""
        await self._run(self._writer.sync_directory)

    async def abort(self) -> None:
        """Removes the temp; does nothing once the file is published."""
        await self._run(self._writer.abort)

    async def _run(self, step: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await _finished(loop.run_in_executor(self._executor, step, *arguments))


async def _finished(work: Awaitable[Result]) -> Result:
    """What `work` gives; a cancellation goes on only when its thread is through.

    A thread cannot be interrupted: removing the temp beneath one that still writes or
    renames would leave the outcome to chance.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten
        raise


class _FailingStep(errors_name):
    """One step of a writer: where it fails, the temp is removed."""

    def __init__(self, writer: AtomicWriter, verb: str) -> None:
        super().__init__(writer.path, verb)
        self._writer = writer

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self._writer.abort()
            super().__exit__(_type, error, _traceback)
