"""Requests that carry many records each, and are answered one by one: what OTLP has in common.

A request is taken whole or refused whole, before it is decoded. Its records pass the same quotas
and limits as those of other senders, and its answer waits for their commit. Nothing is held back: a
sender that must wait is refused, is told when to come again, and does that by itself.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import NamedTuple
from weakref import WeakValueDictionary

import structlog

from logengine.errors import MalformedInput
from logengine.format.record import Peer, peer_fields
from logengine.intake.admission import ANY_STREAM
from logengine.intake.arrivals import Arrivals, Arrived
from logengine.intake.context import IntakeContext
from logengine.intake.in_order import InOrder
from logengine.intake.network import log_fields
from logengine.intake.router import Router
from logengine.intake.shares import Shares
from logengine.protocols.otlp import Encoding, Records, decode, reason
from logengine.protocols.otlp_answers import Code
from logengine.store.pending import Entry
from logengine.store.settings import LimitsConfig

log = structlog.get_logger()

# Of all users together. Each takes its share of memory besides.
REQUESTS_MAX = 512
RETRY_AFTER_S = 1
# A longer request is decoded in a thread, so that the loop serves others meanwhile.
_IN_LOOP_BYTES_MAX = 16 * 1024
# So much is stamped at a time, for the same reason.
_PIECE_BYTES = 256 * 1024
# The records of a request may together be so much longer than the longest request.
_RECORDS_PER_REQUEST = 2


def _give_turn() -> None:
    """Lets the loop run, which would else wait for the interpreter's lock for 5 ms each time."""
    time.sleep(0)


class Accepted(NamedTuple):
    """All records but `rejected` ones are on disk; `why` says why those are not."""

    rejected: int
    why: str


class Refused(NamedTuple):
    """Nothing is known to be stored. If it helps to try again, `retry_after_s` is not 0."""

    code: Code
    why: str
    retry_after_s: int = 0


class RequestSender:
    """Who sends the requests of a connection. Admission knows it as a reader that never pauses.

    With a `router`, `stream` is for records that name none.
    """

    holds_parts = False

    def __init__(self, peer: Peer, uid: int, stream: str, router: Router | None = None) -> None:
        self.peer = peer
        self.peer_fields = peer_fields(peer)
        self.uid = uid
        self.stream = stream
        self.router = router
        self.held_bytes = 0
        # Until a request is decoded, nobody knows which streams it names: only what the user may
        # do counts.
        self.before_decoding = self if router is None else self.to(ANY_STREAM)

    @property
    def is_routed(self) -> bool:
        """Whether its records go to several streams."""
        return self.router is not None

    def to(self, stream: str) -> "RequestSender":
        """Returns the same sender, of records for one stream alone."""
        return RequestSender(self.peer, self.uid, stream)

    def resume(self) -> None:
        """Does nothing: it is not paused."""

    def stall(self) -> None:
        """Does nothing: it is not elected."""


class Held:
    """The memory that one request takes outside of any entry."""

    def __init__(self, around: IntakeContext, sender: RequestSender) -> None:
        self._admission = around.admission
        self._sender = sender
        self._size_bytes = 0

    def change(self, size_bytes: int) -> None:
        """Adds `size_bytes`, which may be negative."""
        self._size_bytes += size_bytes
        self._sender.held_bytes += size_bytes
        self._admission.hold(self._sender, size_bytes, finished=False)

    def release(self) -> None:
        """Gives all of it back."""
        if self._size_bytes:
            self.change(-self._size_bytes)


class _Commit:
    """The entries of a request. `done` is set once all of them are durable."""

    def __init__(self, uid: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.last: int | None = None  # its last number, once all are queued
        self.queued = 0
        self._durable = 0
        self._in_order = InOrder(uid, self._durable_up_to)

    def queue(self, arrivals: Arrivals, parts: Mapping[str, Arrived]) -> None:
        """Queues records for each of several streams."""
        parts = {stream: arrived for stream, arrived in parts.items() if arrived.records}
        if not parts:
            return
        self.queued += sum(arrived.records for arrived in parts.values())
        sender = self._in_order.expect(self.queued)
        sender.entries = len(parts)
        for stream, arrived in parts.items():
            entry = Entry(arrived.body, arrived.records, arrived.timestamp, self.queued, sender)
            arrivals.add(stream, entry)

    def _durable_up_to(self, number: int) -> None:
        self._durable = number
        self.check()

    def check(self) -> None:
        """Sets `done` if nothing is to come any more."""
        if self.last is not None and self._durable >= self.last and not self.done.done():
            self.done.set_result(None)


class Requests:
    """Stores the records of all requests. `shares` are the users' parts of `REQUESTS_MAX`."""

    def __init__(self, around: IntakeContext, limits: LimitsConfig, shares: Shares) -> None:
        self._around = around
        self._admission = around.admission
        self._arrivals = around.arrivals
        self._shares = shares
        self._max_record = limits.max_record
        self.max_request = int(limits.max_request)
        self.timeout_s = limits.stall_timeout
        self.is_stopping = False
        self._decoding: ThreadPoolExecutor | None = None
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    def refusal(self, sender: RequestSender) -> Refused | None:
        """Returns why no request may begin now; None if one may."""
        if not self._shares.has_room(sender.uid):
            return Refused(Code.UNAVAILABLE, "too many requests at once", RETRY_AFTER_S)
        return self.pressure(sender)

    def pressure(self, sender: RequestSender) -> Refused | None:
        """Returns why a request that has begun may not go on; None if it may."""
        if self.is_stopping:
            return Refused(Code.UNAVAILABLE, "the daemon stops", RETRY_AFTER_S)
        if wait_s := self._admission.tokens_in_s(sender.before_decoding):
            return Refused(Code.RESOURCE_EXHAUSTED, "over the quota", max(1, ceil(wait_s)))
        if self._admission.room_for(sender.before_decoding) is None:
            why = "the stream cannot be written to now, or too much waits to be written"
            return Refused(Code.UNAVAILABLE, why, RETRY_AFTER_S)
        return None

    @contextlib.contextmanager
    def under_way(self, sender: RequestSender) -> Iterator[Held]:
        """Counts a request as under way, and what it holds in memory, until the block ends."""
        self._shares.change(sender.uid, 1)
        held = Held(self._around, sender)
        try:
            yield held
        finally:
            self._shares.change(sender.uid, -1)
            held.release()
            self._admission.let_go_on()

    async def store(
        self, sender: RequestSender, body: bytes, encoding: Encoding, held: Held
    ) -> Accepted | Refused:
        """Stores the records of a request. Returns when they are on disk, or why they are not.

        `held` has counted `body`.
        """
        try:
            records = await self._decode(sender.uid, body, encoding)
        except MalformedInput as error:
            log.warning(
                "malformed_input",
                stream=sender.stream,
                reason=str(error),
                **log_fields(sender.peer),
            )
            self._arrivals.discard(sender, 1, len(body))
            return Refused(Code.INVALID_ARGUMENT, f"the request {error}")
        held.change(len(records.lines) - len(body))
        if refused := await self._pressure_of_streams(sender, records.lines):
            return refused
        commit = _Commit(sender.uid)
        rejected, over = await self._queue(sender, records.lines, commit, held)
        if records.too_large:
            self._arrivals.refuse(sender, sender.peer, self._max_record, records.too_large)
        if records.beyond:
            self._arrivals.discard(sender, records.beyond, 0)
        if records.undecodable:
            ignored_bytes = max(0, len(body) - len(records.lines))
            self._arrivals.refuse_undecodable(
                sender, sender.peer, records.why, records.undecodable, ignored_bytes
            )
        if commit.queued:
            try:
                async with asyncio.timeout(self.timeout_s):
                    await commit.done
            except TimeoutError:
                why = "the records are not on disk yet; they may be stored all the same"
                return Refused(Code.UNAVAILABLE, why, RETRY_AFTER_S)
        reasons = [reason(records, self._max_record)]
        if over is not None:
            reasons.append(f"{rejected} are over the quota of the {over}")
        rejected += records.too_large + records.beyond + records.undecodable
        return Accepted(rejected, "; ".join(filter(None, reasons)))

    def close(self) -> None:
        """Ends the thread, if there is one."""
        if self._decoding is not None:
            self._decoding.shutdown(wait=False, cancel_futures=True)

    async def _decode(self, uid: int, body: bytes, encoding: Encoding) -> Records:
        limits = self._max_record, _RECORDS_PER_REQUEST * self.max_request
        if len(body) <= _IN_LOOP_BYTES_MAX:
            return decode(body, encoding, *limits)
        if self._decoding is None:
            self._decoding = ThreadPoolExecutor(1, "otlp")
        loop = asyncio.get_running_loop()
        # One of each user: whoever sends many does not queue them all before another one's.
        async with self._turns.setdefault(uid, asyncio.Lock()):
            return await loop.run_in_executor(
                self._decoding, decode, body, encoding, *limits, _give_turn
            )

    async def _pressure_of_streams(self, sender: RequestSender, lines: bytes) -> Refused | None:
        """Returns why lines may not be queued now, in one of their streams; None if they may."""
        if sender.router is None or not self._admission.may_lack_room:
            return self.pressure(sender)
        # If one of them fails, the request is sent again, with what is for the others too. So
        # nothing may be queued by then.
        streams: set[str] = set()
        async for piece in _pieces(lines):
            self._arrivals.read_clock()
            streams |= self._arrivals.streams_of(
                sender.router, sender.peer_fields, piece, sender.uid
            )
        refusals = (self.pressure(sender.to(stream)) for stream in streams)
        return next(filter(None, refusals), None)

    async def _queue(
        self, sender: RequestSender, lines: bytes, commit: _Commit, held: Held
    ) -> tuple[int, str | None]:
        """Queues `lines`. Returns how many records a quota dropped, and which."""
        numbers, over = 0, None
        async for piece in _pieces(lines):
            self._arrivals.read_clock()
            if sender.router is None:
                arrived = self._arrivals.stamp(sender, sender.peer_fields, piece)
                numbers, over = numbers + arrived.numbers, arrived.over or over
                commit.queue(self._arrivals, {sender.stream: arrived})
            else:
                with self._arrivals.routed(
                    sender.router, sender, sender.peer_fields, piece
                ) as routed:
                    numbers, over = numbers + routed.numbers, routed.over or over
                    commit.queue(self._arrivals, routed.parts)
            held.change(-len(piece))  # now the committer counts them
        commit.last = commit.queued
        commit.check()
        if commit.queued:
            self._arrivals.commit_now()
        return numbers - commit.queued, over


async def _pieces(lines: bytes) -> AsyncIterator[bytes]:
    """Yields some lines at a time, and lets others run in between."""
    start = 0
    while start < len(lines):
        if start:
            await asyncio.sleep(0)
        stop = lines.find(b"\n", start + _PIECE_BYTES) + 1 or len(lines)
        yield lines[start:stop]
        start = stop


class RequestConnection:
    """A connection whose sender makes requests: what the server and its parts know of it.

    `on_closed` is called once, when the connection has ended.
    """

    def __init__(
        self,
        around: IntakeContext,
        sender: RequestSender,
        on_closed: Callable[["RequestConnection"], None],
    ) -> None:
        self._seats = around.seats
        self._hello_timeout = around.hello_timeout
        self.sender = sender
        self._on_closed = on_closed
        self._is_closed = False
        self._is_stopping = False
        self.heard_s = time.monotonic()  # when it was read last, or had an answer

    @property
    def has_unread(self) -> bool:
        """Whether a request is under way."""
        raise NotImplementedError

    def give_way(self) -> None:
        """Ends it in favour of another user's connection: there are too many."""
        log.warning(
            "connection_gave_way",
            stream=self.sender.stream,
            has_unread=self.has_unread,
            **log_fields(self.sender.peer),
        )
        self.close()

    def end_idle(self) -> None:
        """Ends it, unless a request is under way: it has sent nothing for too long."""
        if not self.has_unread:
            log.info(
                "idle_connection_closed", stream=self.sender.stream, **log_fields(self.sender.peer)
            )
            self.close()

    def end_hello(self) -> bool:
        """Ends it because the head of a request took too long."""
        log.warning("hello_timeout", **log_fields(self.sender.peer))
        self.close()
        return True

    async def run(self) -> None:
        """Serves the connection from now on."""
        raise NotImplementedError

    def stop(self) -> None:
        """Lets the requests under way finish, and ends it then."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it immediately. Queued entries are still committed."""
        raise NotImplementedError

    def _closed(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._on_closed(self)
