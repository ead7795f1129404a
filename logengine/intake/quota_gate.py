"""Applies the quotas on an event loop: makes senders wait, drops records, reports the drops."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol

import msgspec
import structlog

from logengine.intake.quota import Admitted, Dropped, Quotas

log = structlog.get_logger()

# The shortest waits and reads: a sender is not resumed for each token, but to read some records.
_PAUSE_MIN_S = 0.02
_READ_MIN_BYTES = 4096


class QuotaSender(Protocol):
    """A sender, as quotas see it: its stream and its user."""

    @property
    def stream(self) -> str:
        """The stream that its records go to."""

    @property
    def uid(self) -> int:
        """The user that it runs as."""


class QuotaGate:
    """Tells the server whether it may read a sender, and which of the lines read may pass.

    `on_tokens` is called when a waiting sender may have tokens again. `write` is called with a
    stream and a line that reports drops in it, at most every `report_every_s` for each stream, user
    and limit. `look_soon` is called when a stream or user may have little room left of a
    `max_bytes`, or of free space. Without `quotas`, nothing is limited.
    """

    def __init__(
        self,
        quotas: Quotas | None,
        report_every_s: float,
        on_tokens: Callable[[], None],
        write: Callable[[str, bytes], None],
        look_soon: Callable[[], None] | None = None,
    ) -> None:
        self._quotas = quotas
        self._report_every_s = report_every_s
        self._on_tokens = on_tokens
        self._write = write
        self._look_soon = look_soon
        self._loop = asyncio.get_running_loop()
        self._nobody_waits = quotas is None
        self._limits_always = quotas is not None and not quotas.limits_nothing
        self._space = quotas.space if quotas is not None else None
        self._tokens_timer: asyncio.TimerHandle | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        self.dropped_records = 0

    @property
    def are_set(self) -> bool:
        """Whether there is any quota, or free space is shared out now."""
        return self._limits_always or (self._space is not None and self._space.is_scarce)

    def wait_s(self, sender: QuotaSender) -> float:
        """Returns the seconds until `sender` has tokens of every blocking quota; 0 if it has."""
        if self._quotas is None or self._nobody_waits or not self.are_set:
            return 0.0
        wait_s = self._quotas.wait_s(sender.stream, sender.uid, self._loop.time())
        if wait_s and self._look_soon is not None:
            self._look_soon()
        return wait_s

    def room(self, sender: QuotaSender) -> tuple[float, float]:
        """Returns how many records and bytes of `sender`, which need not wait, may be read now."""
        if self._quotas is None or self._nobody_waits or not self.are_set:
            return inf, inf
        records, size_bytes = self._quotas.room(sender.stream, sender.uid, self._loop.time())
        return records, max(size_bytes, _READ_MIN_BYTES)

    def admit(self, sender: QuotaSender, body: bytes, count: int) -> Admitted:
        """Returns which of a sender's stored lines the dropping quotas let pass."""
        if self._quotas is None:
            return Admitted(body, count, None)
        if not self.are_set:
            if self._space is not None:
                self._space.add(sender.stream, sender.uid, len(body))
            return Admitted(body, count, None)
        admitted = self._quotas.admit(sender.stream, sender.uid, body, count, self._loop.time())
        if self._look_soon is not None:
            self._look_soon()
        if admitted.over is not None:
            self.dropped_records += count - admitted.records
            if self._report_timer is None:
                self._report_timer = self._loop.call_later(self._report_every_s, self.report)
        return admitted

    def charge(self, sender: QuotaSender, records: int, size_bytes: int) -> None:
        """Takes tokens for what a sender sent and nobody stores, such as blank lines."""
        if self._quotas is not None and (records > 0 or size_bytes > 0):
            now_s = self._loop.time()
            self._quotas.charge(
                sender.stream, sender.uid, max(0, records), max(0, size_bytes), now_s
            )

    def wait_for_tokens(self, wait_s: float) -> None:
        """Schedules `on_tokens` for `wait_s` from now, or sooner."""
        due_s = self._loop.time() + max(wait_s, _PAUSE_MIN_S)
        if self._tokens_timer is not None:
            if self._tokens_timer.when() <= due_s:
                return
            self._tokens_timer.cancel()
        self._tokens_timer = self._loop.call_at(due_s, self._tokens_are_there)

    def without_space(self) -> tuple[list[str], list[int]]:
        """Returns the streams, and the users, whose `max_bytes` is used up, as far as known."""
        return self._quotas.without_space() if self._quotas else ([], [])

    def keep_nobody_waiting(self) -> None:
        """Stops all blocking by quotas: a stop reads everything that was sent."""
        self._nobody_waits = True

    def report(self) -> None:
        """Writes a record into each stream about what was dropped, and of which user."""
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        for dropped in self._quotas.take_dropped() if self._quotas else ():
            log.warning("over_quota", **msgspec.structs.asdict(dropped))
            self._write(dropped.stream, _told(dropped))

    def close(self) -> None:
        """Cancels all timers."""
        for timer in (self._tokens_timer, self._report_timer):
            if timer is not None:
                timer.cancel()

    def _tokens_are_there(self) -> None:
        self._tokens_timer = None
        self._on_tokens()


def _told(dropped: Dropped) -> bytes:
    """Returns the line that reports drops in the stream."""
    told = {
        "level": "warning",
        "event": "records_dropped",
        "reason": "over_quota",
        "quota": dropped.quota,
        "limit": dropped.limit,
        "uid": dropped.uid,
        "records": dropped.records,
        "bytes": dropped.bytes,
    }
    return msgspec.json.encode(told) + b"\n"
