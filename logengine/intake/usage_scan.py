"""Measures what streams and users have stored, for quotas of `max_bytes`.

A scan runs in a thread. It lists a stream's files with their sizes, and reads the header of the
stream's oldest segment. The first scan covers all streams; later ones only streams that have
little or no room left, and streams with records of such a user.
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

# After a scan that took long, because of thousands of streams, the next one waits this many times
# as long.
_REST_PER_SCAN = 9
# If a stream starts with damaged segments, the first intact one among this many is used.
_HEADERS_MAX = 64


class _Wanted(NamedTuple):
    """What to measure of a stream."""

    stream: str
    size: bool
    users: bool


class _Seen(NamedTuple):
    """What was measured; None for what was not wanted or could not be read."""

    stream: str
    size_bytes: int | None
    oldest: Users | UnsetType | None


class UsageScan:
    """Keeps the stored bytes that `quotas` knows close to what is on the disk.

    For a stream or directory that cannot be read, the known values stay. `on_scanned` is called
    after each scan that `scan_soon` requested. Runs on the committer's event loop, with its tasks
    in `tasks`.
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
        self._timer: asyncio.TimerHandle | None = None  # of the scan that is due or running
        self._closed = False
        self._on_scanned = on_scanned

    async def scan_all(self) -> None:
        """Scans all existing streams."""
        streams = await asyncio.to_thread(list_streams, self._store.data)
        counts_users = self._stored.counts_users
        wanted = [_Wanted(s, self._quotas.has_max_bytes(s), counts_users) for s in streams]
        await self._scan([each for each in wanted if each.size or each.users])

    def forget(self) -> None:
        """Forgets what is stored: the data directory was replaced."""
        self._stored.clear()

    def scan_soon(self) -> None:
        """Schedules a scan of the streams and users with little room left, if there are any."""
        if self._stored.anybody_is_near and self._timer is None and not self._closed:
            due_s = max(self._loop.time(), self._may_scan_at)
            self._timer = self._loop.call_at(due_s, self._begin)

    def close(self) -> None:
        """Stops scanning."""
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
            # What is known stays as it was, and a later scan tries again.
            log.exception("quota_look_failed")
        self._timer = None
        if not self._closed:
            self._on_scanned()

    async def _scan(self, wanted: Sequence[_Wanted]) -> None:
        if not self._store.is_open:
            self._may_scan_at = self._loop.time() + SCAN_EVERY_S
            return  # all streams are scanned once it is open
        began = time.monotonic()
        generation = self._store.generation
        seen = await asyncio.to_thread(_look, self._store.data, wanted)
        if generation != self._store.generation:
            return  # the data directory was replaced meanwhile
        for stream, size_bytes, oldest in seen:
            if size_bytes is not None:
                # Records being committed may be in the files already: better to count them twice
                # than not at all.
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
    """Returns the users in the header of the first segment that can be read."""
    for first in list_segments(directory)[:_HEADERS_MAX]:
        # Removed since it was listed, or damaged: the next one says that less is stored.
        with suppress(DamagedSegment, FileNotFoundError):
            return read_header(directory, first).users
    return None
