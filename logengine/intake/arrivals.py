"""Turns received lines into entries: stamps them, applies the dropping quotas, queues them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import structlog

from logengine.format.record import Peer, envelope, stamp
from logengine.format.timestamp import format_timestamp
from logengine.intake.network import log_fields
from logengine.intake.poller import Poller
from logengine.intake.quota_gate import QuotaGate, QuotaSender
from logengine.intake.router import Router
from logengine.local_zone import LOCAL_ZONE
from logengine.store.committer import Committer
from logengine.store.pending import Entry

log = structlog.get_logger()


class Arrived(NamedTuple):
    """`records` stored lines, made from `numbers` received lines.

    If the quota named `over` drops the rest, there are fewer records than numbers.
    """

    body: bytes
    records: int
    numbers: int
    timestamp: str
    over: str | None


class Routed(NamedTuple):
    """What became of `numbers` received lines: those that are stored, by their stream.

    `over` is a quota that drops others.
    """

    parts: dict[str, Arrived]
    numbers: int
    over: str | None


class _OfStream(NamedTuple):
    """A sender, as quotas see it, of records for one of several streams."""

    stream: str
    uid: int


class Arrivals:
    """Passes the lines of all senders to the committer."""

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
        self._opening = b""  # of the envelopes with that timestamp
        self._timestamp_turn = -1
        self._now_s = 0
        self._now = datetime.fromtimestamp(self._now_s, LOCAL_ZONE)
        self._now_turn = -1
        self.refused = 0  # records and datagrams that were too long, and memory files
        self.datagrams = 0

    @property
    def commit_s(self) -> float:
        """How long the last commit took, in seconds."""
        return self._committer.commit_s

    def timestamp(self) -> str:
        """Returns the time for records read now; the same for all reads of one poller turn."""
        if self._timestamp_turn != self._poller.turns:
            self._timestamp_turn = self._poller.turns
            self._timestamp = format_timestamp(self._clock_ns())
            self._opening = envelope(self._timestamp, b"")
        return self._timestamp

    def renew_time(self) -> None:
        """Looks at the clock again at the next record: it was not read in a turn of the poller."""
        self._timestamp_turn = self._now_turn = -1

    def now(self) -> datetime:
        """Returns the same time as `timestamp`, to the second, in the system's zone.

        It is the same object until the second is over.
        """
        if self._now_turn != self._poller.turns:
            self._now_turn = self._poller.turns
            now_s = self._clock_ns() // 1_000_000_000
            if now_s != self._now_s:
                self._now_s = now_s
                self._now = datetime.fromtimestamp(now_s, LOCAL_ZONE)
        return self._now

    def read_clock(self) -> None:
        """Lets what follows have the time of now, though it is not read in a turn of the poller."""
        self._timestamp_turn = self._now_turn = -1

    def stamp(self, sender: QuotaSender, peer_fields: bytes, chunk: bytes) -> Arrived:
        """Stamps `chunk`, complete lines of one sender. Returns those that the quotas let pass."""
        timestamp = self.timestamp()
        body, count = stamp(chunk, self._opening + peer_fields)
        passed = self._quotas.admit(sender, body, count) if count else None
        if self._quotas.are_set:
            self._charge_for_blank(sender, chunk, body, count)
        if passed is None:
            return Arrived(b"", 0, 0, timestamp, None)
        return Arrived(passed.body, passed.records, count, timestamp, passed.over)

    @contextmanager
    def routed(
        self, router: Router, sender: QuotaSender, peer_fields: bytes, chunk: bytes
    ) -> Iterator[Routed]:
        """Stamps `chunk` as `stamp` does. Inside the block, its parts may be added to streams."""
        timestamp = self.timestamp()
        body, count = stamp(chunk, self._opening + peer_fields)
        with router.split(body, count, sender, sender.uid) as bodies:
            parts: dict[str, Arrived] = {}
            over = None
            for stream, part in bodies.items():
                records = count if len(bodies) == 1 else part.count(b"\n")
                passed = self._quotas.admit(_OfStream(stream, sender.uid), part, records)
                over = passed.over or over
                if passed.records:
                    parts[stream] = Arrived(
                        passed.body, passed.records, records, timestamp, passed.over
                    )
            if self._quotas.are_set:
                self._charge_for_blank(sender, chunk, body, count)
            yield Routed(parts, count, over)

    def streams_of(self, router: Router, peer_fields: bytes, chunk: bytes, uid: int) -> set[str]:
        """Returns the streams that the lines of `chunk` would go to, and takes nothing."""
        body, count = stamp(chunk, envelope(self.timestamp(), peer_fields))
        return router.streams_of(body, count, uid)

    def _charge_for_blank(self, sender: QuotaSender, chunk: bytes, body: bytes, count: int) -> None:
        # After the records, which come first. A blank line for each record is free: it may ask
        # for a commit.
        blank = chunk.count(b"\n") - count
        self._quotas.charge(sender, max(0, blank - count), len(chunk) - len(body))

    def add(self, stream: str, entry: Entry, *, is_awaited: bool = False) -> None:
        """Queues an entry. Its sender is notified once it is durable, soon if it waits for that."""
        self._committer.add(stream, entry, is_awaited=is_awaited)

    def commit_now(self) -> None:
        """Commits everything queued as soon as possible, because a sender asked for it."""
        self._committer.commit_now()

    def refuse(self, sender: QuotaSender, peer: Peer, limit: int, records: int = 1) -> None:
        """Counts and logs records that are longer than `limit` bytes and were discarded."""
        log.warning(
            "record_too_large",
            stream=sender.stream,
            limit=limit,
            comm=peer.comm,
            **log_fields(peer),
            **({"records": records} if records > 1 else {}),
        )
        self.refused += records
        self._quotas.charge(sender, records, records * limit)

    def refuse_file(self, sender: QuotaSender, peer: Peer, reason: str) -> None:
        """Counts and logs a datagram whose content was to come in a file that is not read."""
        log.warning(
            "memory_file_refused",
            stream=sender.stream,
            reason=reason,
            comm=peer.comm,
            **log_fields(peer),
        )
        self.refused += 1
        self._quotas.charge(sender, 1, 0)

    def refuse_undecodable(
        self, sender: QuotaSender, peer: Peer, reason: str, records: int, size_bytes: int
    ) -> None:
        """Counts and logs records of a request that cannot be decoded, while others can."""
        log.warning(
            "malformed_input",
            stream=sender.stream,
            reason=reason,
            records=records,
            **log_fields(peer),
        )
        self.refused += records
        self._quotas.charge(sender, records, size_bytes)

    def discard(self, sender: QuotaSender, records: int, size_bytes: int) -> None:
        """Takes tokens for what a sender sent and its protocol ignores, such as blank lines."""
        self._quotas.charge(sender, records, size_bytes)
