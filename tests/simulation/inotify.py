"""inotify(7) on the simulated disk: which events a follower gets, and when.

It has what the engine uses of `asyncinotify`.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from asyncinotify import Mask

from tests.simulation.disk import Directory, Inode

Delay = Callable[[Callable[[], None]], None]


@dataclass(eq=False)
class Watch:
    """A watched directory or file."""

    path: Path
    mask: Mask
    inode: Inode


@dataclass(frozen=True)
class Event:
    """A change of a name in a watched directory."""

    watch: Watch | None
    mask: Mask
    name: Path | None


class Notifications:
    """All watches. `delay` makes a call later."""

    def __init__(self, look_up: Callable[[str], Any], delay: Delay) -> None:
        self.look_up = look_up
        self.delay = delay
        self._watching: list[Inotify] = []

    def begin(self) -> "Inotify":
        """A new inotify instance."""
        inotify = Inotify(self)
        self._watching.append(inotify)
        return inotify

    def end(self, inotify: "Inotify") -> None:
        """Removes a closed instance."""
        if inotify in self._watching:
            self._watching.remove(inotify)

    def forget_all(self) -> None:
        """Removes all watches: the machine reboots."""
        self._watching.clear()

    def tell(self, directory: Directory, mask: Mask, name: str) -> None:
        """Reports that a name in a directory changed."""
        for inotify in self._watching:
            inotify.hear(directory, mask, name)


class Inotify:
    """One inotify instance, of one event loop."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications
        self._watches: dict[int, Watch] = {}
        self._coming: deque[Event] = deque()
        self._events: deque[Event] = deque()
        self._waiting: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._notifications.end(self)

    def add_watch(self, path: Any, mask: Mask) -> Watch:
        """Watches a path; the same inode has the same watch. Raises `OSError`."""
        inode = self._notifications.look_up(os.fspath(path))
        if mask & Mask.ONLYDIR and not inode.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        watch = self._watches.get(inode.number)
        if watch is None:
            watch = self._watches[inode.number] = Watch(Path(path), mask, inode)
        watch.mask = mask
        return watch

    def rm_watch(self, watch: Watch) -> None:
        """Removes a watch. Raises `OSError` if it was removed before."""
        if self._watches.pop(watch.inode.number, None) is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def hear(self, directory: Directory, mask: Mask, name: str) -> None:
        """Takes a change in a directory, watched or not."""
        watch = self._watches.get(directory.number)
        if watch is not None and watch.mask & mask:
            self._put(Event(watch, mask, Path(name)))
        changed = directory.entries.get(name) if mask & Mask.MODIFY else None
        of_file = self._watches.get(changed.number) if changed is not None else None
        if of_file is not None and of_file.mask & mask:
            self._put(Event(of_file, mask, None))
        if mask & (Mask.DELETE | Mask.MOVED_TO):
            for each in [w for w in self._watches.values() if not w.inode.links]:
                del self._watches[each.inode.number]
                self._put(Event(each, Mask.IGNORED, None))

    def _put(self, event: Event) -> None:
        self._coming.append(event)
        self._notifications.delay(self._arrived)

    def _arrived(self) -> None:
        self._events.append(self._coming.popleft())  # in their order, however late
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> Event:
        """The next event."""
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._events.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.get()
