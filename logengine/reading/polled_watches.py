"""Watches without inotify, for a user whose inotify instances or watches are used up.

The limits (`fs.inotify.max_user_instances` and `max_user_watches`) are shared by all processes of a
user, and editors, desktops and container runtimes need many. tail(1) also looks at intervals then.
"""

import asyncio
import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from asyncinotify import Mask

LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class PolledWatch:
    """A file or directory that is watched; `descriptor` keeps its inode from being reused."""

    path: Path
    mask: Mask
    descriptor: int


@dataclass(frozen=True)
class PolledEvent:
    """What inotify reports: that events were lost, or that a path was moved or removed."""

    watch: PolledWatch | None
    mask: Mask
    name: Path | None = None


class PolledWatches:
    """Has what a follower uses of `Inotify`, and reports at intervals that events were lost.

    So the follower reads again all that it follows. Only for watches with `MOVE_SELF` does this
    look by itself whether the path is still the same directory. Uses a descriptor for each watch.
    """

    def __init__(self) -> None:
        self._watches: dict[tuple[int, int], PolledWatch] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for watch in self._watches.values():
            os.close(watch.descriptor)
        self._watches.clear()

    def add_watch(self, path: Path, mask: Mask) -> PolledWatch:
        """Watches a path; the same inode has the same watch. Raises `OSError`."""
        only_directory = os.O_DIRECTORY if mask & Mask.ONLYDIR else 0
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | only_directory)
        inode = _inode(os.fstat(descriptor))
        if inode in self._watches:
            os.close(descriptor)
        else:
            self._watches[inode] = PolledWatch(path, mask, descriptor)
        return self._watches[inode]

    def rm_watch(self, watch: PolledWatch) -> None:
        """Removes a watch. Raises `OSError` if it was removed before."""
        for inode, known in self._watches.items():
            if known is watch:
                del self._watches[inode]
                os.close(watch.descriptor)
                return
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(watch.path))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PolledEvent:
        await asyncio.sleep(LOOK_EVERY_S)
        event = PolledEvent(None, Mask.Q_OVERFLOW)
        for inode, watch in list(self._watches.items()):
            if watch.mask & Mask.MOVE_SELF and _inode_at(watch.path) != inode:
                event = PolledEvent(watch, Mask.MOVE_SELF)
            if not os.fstat(watch.descriptor).st_nlink:
                self.rm_watch(watch)  # it was removed; inotify also removes the watch then
        return event


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _inode_at(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return _inode(os.stat(path))
    return None
