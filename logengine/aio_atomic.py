"""`AtomicWriter` for asyncio, on aiofiles: each step runs in a thread.

As in the blocking writer, an exception may come at any bytecode. The temp file is removed
nevertheless: by the thread that is running a step, or by the `async with` statement itself.
"""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiofiles.base import wrap

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import StrPath
from logengine.disk.exit_guard import ExitGuard

Result = TypeVar("Result")


class AsyncAtomicWriter:
    """`AtomicWriter` for asyncio, with the same guarantees for the file.

    Leaving the `async with` by an exception or by cancellation removes the temp file and leaves
    the target untouched. If the cancellation comes after the rename, the file is new and
    complete, and the directory sync finishes before the cancellation continues. `executor` None
    means the loop's default executor.
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
        # A step that an exception left running in its thread continues; the next one waits.
        self._stepping = threading.Lock()
        self._is_abandoned = False
        self.leaving: Callable[[], object] | None = None
        # The coroutine of `__aexit__`, until the `async with` statement has it.
        self._handing_over: list[Coroutine[Any, Any, None]] | None = None
        self._is_finishing = False
        self._watches: list[object] = []

    @property
    def path(self) -> str:
        """The target, absolute."""
        return self._writer.path

    @property
    def temp_path(self) -> str | None:
        """The path of the temp file, while it exists."""
        return self._writer.temp_path

    @property
    def published(self) -> bool:
        """Whether the file has taken its name, durably or not."""
        return self._writer.published

    async def __aenter__(self) -> Self:
        leaving = self.leaving and self.leaving()
        if leaving is not None:
            self._watches = [weakref.ref(leaving, self._left)]
            del leaving
        try:
            await self._run(self._writer.open)
        except BaseException:
            await self.abort()
            raise
        return self

    def _leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        # No variable holds the coroutine: a traceback would keep it alive after its `await`.
        self._handing_over = [self._finish(exc_type)]
        self._watches.append(weakref.ref(self._handing_over[0], self._abandon))
        return self._handing_over.pop()

    if TYPE_CHECKING:
        __aexit__ = _leave
    else:
        __aexit__ = ExitGuard(_leave)

    async def _finish(self, exc_type: type[BaseException] | None) -> None:
        self._is_finishing = True
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
        self._watches = []

    async def write(self, data: Any) -> int:
        """Writes all of `data`, text or bytes depending on `mode`; returns its length."""
        return await self._run(self._writer.write, data)

    async def prepare(self) -> None:
        """Flushes and fsyncs the temp file. The target is still untouched."""
        await self._run(self._writer.prepare)

    async def publish(self) -> None:
        """Renames the temp file to the target. Durable only after `sync_directory`."""
        await self._run(self._writer.publish)

    async def sync_directory(self) -> None:
        """Makes the target's new name durable."""
        await self._run(self._writer.sync_directory)

    async def abort(self) -> None:
        """Removes the temp file; does nothing once the file is published."""
        await self._run(self._writer.abort)
        self._watches = []

    async def _run(self, step: Callable[..., Result], *arguments: Any) -> Result:
        return await _finished(wrap(self._take)(step, *arguments, executor=self._executor))

    def _take(self, step: Callable[..., Result], *arguments: Any) -> Result:
        try:
            with self._stepping:
                return step(*arguments)
        finally:
            if self._is_abandoned:
                with self._stepping:
                    self._writer.abort()

    def _left(self, leaving: object) -> None:
        """The `async with` has released `__aexit__`: it was called, or never will be."""
        if self._handing_over != []:
            self._abandon(leaving)
            return
        # Handed over, or almost: a debugger may hold what `__aexit__` was about to return.
        with contextlib.suppress(RuntimeError):  # no loop runs any more
            asyncio.get_running_loop().call_soon(self._abandon_unless_finishing)

    def _abandon_unless_finishing(self) -> None:
        if not self._is_finishing:
            self._abandon(None)

    def _abandon(self, _gone: object) -> None:
        """Removes the temp file, now or when the step that a thread is running has ended."""
        self._is_abandoned = True
        if self._stepping.acquire(blocking=False):
            try:
                self._writer.abort()
            finally:
                self._stepping.release()


async def _finished(work: Awaitable[Result]) -> Result:
    """Returns the result of `work`. A cancellation continues only when its thread has finished.

    A thread cannot be interrupted: removing the temp file while the thread still writes or renames
    would leave the outcome to chance.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it as unhandled
        raise
