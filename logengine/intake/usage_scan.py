"""Looks at what streams and users have stored, for quotas of `max_bytes`: files and headers.

A look is taken in a thread: a listing of a stream, with the sizes of its files, and the header of
its oldest segment. At the start of all streams; then only of those that have hardly any room
left, or none, or that have records of such a user.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog
from msgspec import UnsetType

from logengine.disk.directory import Directory
from logengine.disk.segment_file import list_segments, list_streams, read_header, size_of_segments
from logengine.errors import DamagedSegment
from logengine.format.user_bytes import Users, stored_bytes_of
from logengine.intake.quota import SCAN_EVERY_S, Quotas
from logengine.store.committer import Committer
from logengine.store.store import Store

log = structlog.get_logger()

# A look that took long, because of thousands of streams, is not taken again at once.
_REST_PER_SCAN = 9
# Of a stream that begins with damaged segments the first one that is whole tells, among these.
_HEADERS_MAX = 64


class _Wanted(NamedTuple):
    """What is to be looked at of a stream."""

    stream: str
    size: bool
    users: bool


class _Seen(NamedTuple):
    """What was seen; None is what was not looked at, or could not be."""

    stream: str
    size_bytes: int | None
    oldest: Users | UnsetType | None


class UsageScan:
    """Keeps what `quotas` knows of the space that is used near to the truth.

    Of a stream or directory that cannot be read it stays as it was. `on_scanned` is called after
    each look that was asked for. Runs on the committer's event loop, with its tasks in `tasks`.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        quotas: Quotas,
        tasks: asyncio.TaskGroup,
        on_scanned: Callable[[], None],
    ) -> None:
        self._store = store
        self._committer = committer
        self._quotas = quotas
        self._stored = quotas.stored
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._may_scan_at = 0.0
        self._timer: asyncio.TimerHandle | None = None  # of the look that is due, or under way
        self._closed = False
        self._on_scanned = on_scanned

    async def scan_all(self) -> None:
        """Looks at all streams that there are."""
        streams = await asyncio.to_thread(list_streams, self._store.data)
        counts_users = self._stored.counts_users
        wanted = [_Wanted(s, self._quotas.has_max_bytes(s), counts_users) for s in streams]
        await self._scan([each for each in wanted if each.size or each.users])

    def forget(self) -> None:
        """Knows nothing of what is stored any more: the data directory is another one."""
        self._stored.clear()

    def scan_soon(self) -> None:
        """Has those looked at who are near the end of their room, once that may be."""
        if self._stored.anybody_is_near and self._timer is None and not self._closed:
            due_s = max(self._loop.time(), self._may_scan_at)
            self._timer = self._loop.call_at(due_s, self._begin)

    def close(self) -> None:
        """Ends it: no more looks are taken."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        self._tasks.create_task(self._scan_near())

    async def _scan_near(self) -> None:
        streams, of_users = self._stored.take_near()
        wanted = [
            _Wanted(stream, stream in streams, stream in of_users) for stream in streams | of_users
        ]
        try:
            await self._scan(wanted)
        except Exception:
            # Whatever it is, what is known stays as it was, and it is tried again.
            log.exception("quota_look_failed")
        self._timer = None
        if not self._closed:
            self._on_scanned()

    async def _scan(self, wanted: Sequence[_Wanted]) -> None:
        if not self._store.is_open:
            self._may_scan_at = self._loop.time() + SCAN_EVERY_S
            return  # all streams are looked at once it is
        began = time.monotonic()
        generation = self._store.generation
        seen = await asyncio.to_thread(_look, self._store.data, wanted)
        if generation != self._store.generation:
            return  # of a directory that is another one by now
        for stream, size_bytes, oldest in seen:
            if size_bytes is not None:
                # What is under way may be among the files too: rather twice than not at all.
                waiting_bytes = self._committer.bytes_waiting(stream)
                self._stored.saw_stream(stream, size_bytes + waiting_bytes)
            if oldest is not None:
                users = stored_bytes_of(self._store.users_of(stream), oldest)
                self._stored.saw_users(stream, users)
        took_s = time.monotonic() - began
        self._may_scan_at = self._loop.time() + max(SCAN_EVERY_S, took_s * _REST_PER_SCAN)


def _look(data: Directory, wanted: Sequence[_Wanted]) -> list[_Seen]:
    return [_seen(data, each) for each in wanted]


def _seen(data: Directory, wanted: _Wanted) -> _Seen:
    size_bytes: int | None = None
    oldest: Users | UnsetType | None = None
    try:
        with data.subdirectory(wanted.stream) as directory:
            if wanted.size:
                size_bytes = size_of_segments(directory)
            if wanted.users:
                oldest = _users_of_oldest(directory)
    except OSError as error:
        log.warning("quota_not_looked_at", stream=wanted.stream, error=str(error))
    return _Seen(wanted.stream, size_bytes, oldest)


def _users_of_oldest(directory: Directory) -> Users | UnsetType | None:
    """What the first segment says of users that can be read."""
    for first in list_segments(directory)[:_HEADERS_MAX]:
        # Removed since it was listed, or damaged: the one behind it says that less is stored.
        with suppress(DamagedSegment, FileNotFoundError):
            return read_header(directory, first).users
    return None
