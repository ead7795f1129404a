"""Looks at the free space of the file system, for the shares of users (`space_shares`).

A look runs in a thread, and only after something arrived or while a sender waits: after so many
bytes, or after some seconds.

DATA/.shares   exists while space is shared out: who has used how much of it, in JSON

The file is for the next process and is not synced. If it is lost or cut short, that process shares
out what is free then.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from logengine.disk.directory import Directory
from logengine.disk.writes import write_all
from logengine.intake.space_shares import SharedSpace, SpaceShares
from logengine.store.committer import Committer
from logengine.store.store import Store

log = structlog.get_logger()

SHARES_NAME = ".shares"
_SHARES_BYTES_MAX = 1024 * 1024
# The shortest time between two looks; the longest, while records arrive; and while a sender waits.
_BETWEEN_LOOKS_S = 0.1
_LOOK_EVERY_S = 5.0
_LOOK_FOR_WAITING_S = 1.0
# Of a stream that drops its oldest segments, so many bytes may be taken before they are dropped.
_DROPS_LATER_BYTES_MAX = 1024 * 1024
_DROP_AGAIN_S = 2.0
# So much more is dropped each time, not to drop a segment for each few lines.
_DROP_AHEAD_BYTES = 256 * 1024


class _Seen(NamedTuple):
    """The free space for users other than root, and what of it should be kept."""

    free: int
    keep_free: int


class FreeSpace:
    """Keeps the free space that `shares` knows close to what is on the disk.

    `keep_free` returns how many bytes to keep free, from the file system's size. A stream for which
    `drops_oldest` is true goes on when its sender's share is used up: it drops its oldest segments
    for what it takes. `on_looked` is called after each look. Runs on the committer's event loop,
    with its tasks in `tasks`.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        shares: SpaceShares,
        keep_free: Callable[[int], int],
        tasks: asyncio.TaskGroup,
        *,
        drops_oldest: Callable[[str], bool] = lambda _: False,
        on_looked: Callable[[], None] = lambda: None,
    ) -> None:
        self.shares = shares
        self.is_scarce = False  # as `shares` has it; read for each chunk
        self._store = store
        self._committer = committer
        self._keep_free = keep_free
        self._tasks = tasks
        self._drops_oldest = drops_oldest
        self._on_looked = on_looked
        self._loop = asyncio.get_running_loop()
        self._looked_at = -_LOOK_EVERY_S
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._is_looking = False
        self._closed = False
        self._noted: SharedSpace | None = None
        self._is_told = False
        self._told_users: set[int] = set()
        self._to_drop: dict[str, int] = {}  # by stream; negative for what was dropped in advance
        self._dropping: set[str] = set()
        self._has_none_to_drop: set[str] = set()

    async def begin(self) -> None:
        """Takes the first look, at the directory that the store has open."""
        with contextlib.suppress(OSError):
            self._noted = await asyncio.to_thread(_read_note, self._store.data)
        if self._noted is not None:
            self.shares.restore(self._noted)
        await self._look()

    def forget(self) -> None:
        """Forgets what is free: the data directory was replaced."""
        self.shares.forget()
        self.is_scarce = False
        self._noted = None
        self._to_drop.clear()
        self._has_none_to_drop.clear()

    def close(self) -> None:
        """Takes no more looks."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def left(self, uid: int) -> int:
        """How many bytes of a user's share are left; 0 or less for none."""
        return self.shares.left(uid)

    def limits(self, stream: str, uid: int) -> bool:
        """Whether records of a user for a stream must fit the user's share now."""
        if not self.shares.limits(uid):
            return False
        return not (
            self._drops_oldest(stream)
            and stream not in self._has_none_to_drop
            and self._to_drop.get(stream, 0) < _DROPS_LATER_BYTES_MAX
        )

    def add(self, stream: str, uid: int, size: int) -> None:
        """Counts lines that are queued to be stored."""
        shares = self.shares
        if self.is_scarce and shares.limits(uid) and shares.left(uid) <= 0:
            drops = self._drops_oldest(stream)
            shares.add(stream, uid, size, charged=not drops)
            if drops:
                self._drop_for(stream, size)
        else:
            shares.add(stream, uid, size)
            self.is_scarce = shares.is_scarce
        if shares.until_look <= 0:
            self._look_in(_BETWEEN_LOOKS_S)
        elif self._loop.time() - self._looked_at > _LOOK_EVERY_S:
            self._look_in(0.0)

    def look_soon(self) -> None:
        """Schedules a look for a sender that waits."""
        if self.is_scarce:
            self._look_in(_LOOK_FOR_WAITING_S)

    def _look_in(self, after_last_s: float) -> None:
        if self._closed or self._is_looking or not self._store.is_open:
            return
        due_s = max(self._loop.time(), self._looked_at + after_last_s)
        if self._timer is not None:
            if self._due_s <= due_s:
                return
            self._timer.cancel()
        # Not the timer's own time: for a call that is due at once, uvloop's has none.
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._is_looking = True
        self._tasks.create_task(self._look_again())

    async def _look_again(self) -> None:
        try:
            await self._look()
        except Exception:
            log.exception("free_space_look_failed")  # a later look tries again
        finally:
            self._is_looking = False
        if not self._closed:
            self._on_looked()

    async def _look(self) -> None:
        if not self._store.is_open:
            return
        self._looked_at = self._loop.time()
        generation, data = self._store.generation, self._store.data
        not_stored = self._committer.pending_bytes + self.shares.look()
        try:
            seen = await asyncio.to_thread(_free_of, data, self._keep_free)
        except OSError as error:
            # What is known stays as it was, and a later look tries again.
            log.warning("free_space_not_looked_at", error=str(error))
            return
        if generation != self._store.generation:
            return  # the data directory was replaced meanwhile
        self.shares.saw(seen.free - not_stored, seen.keep_free)
        self.is_scarce = self.shares.is_scarce
        self._report(seen.free)
        shared = self.shares.shared
        if shared != self._noted:
            self._noted = shared
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_write_note, data, shared)

    def _report(self, free: int) -> None:
        shares = self.shares
        if not shares.is_scarce:
            if self._is_told:
                log.info("space_no_longer_low", free_bytes=free, keep_free_bytes=shares.kept)
            self._is_told = False
            self._told_users.clear()
            self._to_drop.clear()
            return
        if not self._is_told and free < shares.kept:
            self._is_told = True
            log.warning(
                "space_low",
                free_bytes=free,
                keep_free_bytes=shares.kept,
                reason="what is left is shared out among users; one that has used its share has "
                "to wait until there is more ([quota] keep_free)",
            )
        for uid in shares.users_without():
            if uid not in self._told_users:
                self._told_users.add(uid)
                log.warning(
                    "space_share_used_up", uid=uid, left_for_others_bytes=shares.left_for_all
                )

    def _drop_for(self, stream: str, size: int) -> None:
        """Has a stream drop its oldest segments for lines that it takes."""
        self._to_drop[stream] = self._to_drop.get(stream, 0) + size
        if self._to_drop[stream] > 0 and stream not in self._dropping and not self._closed:
            self._dropping.add(stream)
            self._tasks.create_task(self._drop(stream))

    async def _drop(self, stream: str) -> None:
        try:
            while (wanted := self._to_drop.get(stream, 0)) > 0 and not self._closed:
                try:
                    freed = await self._committer.make_room(stream, wanted + _DROP_AHEAD_BYTES)
                except Exception as error:  # noqa: BLE001 - any error is retried
                    log.error("oldest_segments_not_dropped", stream=stream, error=str(error))
                    freed = 0
                if not freed:
                    self._has_none_to_drop.add(stream)
                    self._loop.call_later(_DROP_AGAIN_S, self._has_none_to_drop.discard, stream)
                    self._to_drop.pop(stream, None)
                    return
                self._to_drop[stream] = self._to_drop.get(stream, 0) - freed
        finally:
            self._dropping.discard(stream)
            self._look_in(_BETWEEN_LOOKS_S)


def _free_of(data: Directory, keep_free: Callable[[int], int]) -> _Seen:
    found = os.fstatvfs(data.descriptor)
    size = found.f_blocks * found.f_frsize
    return _Seen(found.f_bavail * found.f_frsize, keep_free(size))


def _read_note(data: Directory) -> SharedSpace | None:
    """Returns what an earlier process noted; None if there is nothing usable. Raises `OSError`."""
    descriptor = data.open_file(SHARES_NAME, os.O_RDONLY)
    try:
        text = os.read(descriptor, _SHARES_BYTES_MAX)
    finally:
        os.close(descriptor)
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(text, type=SharedSpace)
    return None


def _write_note(data: Directory, shared: SharedSpace | None) -> None:
    """Replaces the note, or removes it. Raises `OSError`."""
    if shared is None:
        data.unlink(SHARES_NAME)
        return
    descriptor = data.open_file(SHARES_NAME, os.O_WRONLY | os.O_CREAT)
    try:
        text = msgspec.json.encode(shared)
        write_all(descriptor, [text])
        os.ftruncate(descriptor, len(text))
    finally:
        os.close(descriptor)
