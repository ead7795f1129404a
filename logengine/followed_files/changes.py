"""Wakes a task when something changes in directories: by inotify, where there is any left.

What changed is not read: whoever waits looks at all of it, and at intervals anyway. Between two
waits, events stay in the kernel: a program that writes a thousand lines wakes nobody a thousand
times.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping

from asyncinotify import Inotify, Mask

_CHANGES = (
    Mask.MODIFY
    | Mask.CREATE
    | Mask.DELETE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.ATTRIB
    | Mask.ONLYDIR
)
_EVENT_BYTES = 64 * 1024


class Changes:
    """The changes of some directories. Runs on one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._directories: Mapping[str, object] = {}
        self._inotify: Inotify | None = None

    def watch(self, directories: Mapping[str, object]) -> None:
        """Watches these directories and no others; the value says which directory it is.

        Where inotify's limits are used up, a change wakes nobody.
        """
        if directories == self._directories:
            return
        self._directories = dict(directories)
        self.close()
        with contextlib.suppress(OSError):
            self._inotify = Inotify()
            os.set_blocking(self._inotify.fd, False)
            for each in directories:
                with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                    self._inotify.add_watch(each, _CHANGES)

    def wake(self) -> None:
        """Wakes the waiting task."""
        self._woken.set()

    async def wait(self, seconds: float, *, hears: bool) -> bool:
        """Returns after some seconds, after a call of `wake` and, if it hears them, a change.

        Returns whether there was a change.
        """
        has_changed = False
        if hears and self._inotify is not None:
            self._loop.add_reader(self._inotify.fd, self._woken.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        if hears and self._inotify is not None:
            self._loop.remove_reader(self._inotify.fd)
            with contextlib.suppress(BlockingIOError):
                while os.read(self._inotify.fd, _EVENT_BYTES):
                    has_changed = True
        return has_changed

    def close(self) -> None:
        """Ends all watches."""
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
