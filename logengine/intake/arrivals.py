"""What arrived becomes entries: stamped, held to the quotas that drop, and queued."""

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from logengine.format.record import Peer, envelope, stamp
from logengine.format.timestamp import format_timestamp
from logengine.intake.poller import Poller
from logengine.intake.quota_gate import QuotaGate, QuotaSender
from logengine.store.committer import Committer
from logengine.store.pending import Entry

log = structlog.get_logger()


class Arrived(NamedTuple):
    """Stored lines, `records` of them, made of `numbers` lines; `over` is a quota's name.

    There are fewer records than numbers if that quota drops the rest.
    """

    body: bytes
    records: int
    numbers: int
    timestamp: str
    over: str | None


class Arrivals:
    """The way of all senders' lines to the committer."""

    def __init__(
        self,
        committer: Committer,
        quotas: QuotaGate,
        poller: Poller,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._committer = committer
        self._quotas = quotas
        self._poller = poller
        self._clock_ns = clock_ns
        self._timestamp = ""
        self._timestamp_turn = -1
        self.refused = 0  # records, and datagrams, that were too long
        self.datagrams = 0

    def timestamp(self) -> str:
        """The time for what arrives now: one for all that is read in one turn."""
        if self._timestamp_turn != self._poller.turns:
            self._timestamp_turn = self._poller.turns
            self._timestamp = format_timestamp(self._clock_ns())
        return self._timestamp

    def stamp(self, sender: QuotaSender, peer_fields: bytes, chunk: bytes) -> Arrived:
        """The stored lines of `chunk`, complete lines of one sender, that the quotas let pass."""
        timestamp = self.timestamp()
        body, count = stamp(chunk, envelope(timestamp, peer_fields))
        if not count:
            return Arrived(b"", 0, 0, timestamp, None)
        passed = self._quotas.admit(sender, body, count)
        return Arrived(passed.body, passed.records, count, timestamp, passed.over)

    def add(self, stream: str, entry: Entry) -> None:
        """Queues an entry; its sender hears of it once it is durable."""
        self._committer.add(stream, entry)

    def refuse(self, stream: str, peer: Peer, limit: int) -> None:
        """Counts and reports what is longer than `limit` bytes, and is not kept."""
        log.warning(
            "record_too_large",
            stream=stream,
            limit=limit,
            pid=peer.pid,
            uid=peer.uid,
            comm=peer.comm,
        )
        self.refused += 1
