"""Datagrams that are dropped for want of room: counted, logged, and reported in their stream.

Only from sockets with `on_pressure = "drop"`. The report is a record of the daemon's own, as for
what a quota drops. It waits until its stream has room.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

log = structlog.get_logger()

# Beyond this number of users, the drops of further ones are reported together.
_USERS_MAX = 1024


@dataclass
class _Dropped:
    datagrams: int = 0
    bytes: int = 0


class PressureDrops:
    """Counts what is dropped, and reports it at most every `report_every_s`, for each user.

    `may_write` says whether a stream has room for a report, and `write` adds it. Runs on one event
    loop.
    """

    def __init__(
        self,
        report_every_s: float,
        may_write: Callable[[str], bool],
        write: Callable[[str, bytes], None],
    ) -> None:
        self._report_every_s = report_every_s
        self._may_write = may_write
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._dropped: dict[tuple[str, int | None], _Dropped] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.datagrams = 0

    def add(self, stream: str, uid: int, size_bytes: int) -> None:
        """Counts a dropped datagram of `uid`, that would have gone to `stream`."""
        self.datagrams += 1
        place: tuple[str, int | None] = (stream, uid)
        if place not in self._dropped and len(self._dropped) >= _USERS_MAX:
            place = (stream, None)
        dropped = self._dropped.setdefault(place, _Dropped())
        dropped.datagrams += 1
        dropped.bytes += size_bytes
        if self._timer is None:
            self._timer = self._loop.call_later(self._report_every_s, self.report)

    def report(self, *, is_last: bool = False) -> None:
        """Reports what was dropped in streams that have room, or in all, if it `is_last`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for place in list(self._dropped):
            stream, uid = place
            if is_last or self._may_write(stream):
                dropped = self._dropped.pop(place)
                fields = {"uid": uid, "datagrams": dropped.datagrams, "bytes": dropped.bytes}
                log.warning("datagrams_dropped", stream=stream, reason="no_room", **fields)
                self._write(stream, _told(fields))
        if self._dropped:
            self._timer = self._loop.call_later(self._report_every_s, self.report)

    def close(self) -> None:
        """Cancels the timer."""
        if self._timer is not None:
            self._timer.cancel()


def _told(fields: dict[str, int | None]) -> bytes:
    told = {"level": "warning", "event": "datagrams_dropped", "reason": "no_room", **fields}
    return msgspec.json.encode(told) + b"\n"
