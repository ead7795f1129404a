"""Decides which senders may be read: by the room of their stream, by memory, and by quotas.

A sender is not read while its stream fails or has `max_pending_stream` bytes waiting, nor while its
user has its share of `max_pending` in memory. The kernel's buffers then fill up, and senders block.

Unfinished records may take most of a user's share, and no commit frees them. Then only bytes that
complete records are read from the kernel's buffers, which reduces what is held, and one sender of
the user at a time is elected to continue with a record that is larger than its kernel buffer.

A sender over a blocking quota is not read until it has tokens again.
"""

import asyncio
from collections.abc import Collection
from math import inf
from typing import NamedTuple, Protocol

from logengine.intake.quota_gate import QuotaGate
from logengine.intake.shares import PRIVILEGED, Rule
from logengine.protocols.wire import Opening
from logengine.store.committer import Committer

# The stream of a reader whose next record may be for any: only what its user may do counts.
ANY_STREAM = ""

# Each elected sender may take up to a whole record beyond the memory for records.
_ELECTED_MAX = 16


class Reader(Protocol):
    """An object that reads a sender's socket while admission permits it."""

    stream: str
    uid: int

    @property
    def is_routed(self) -> bool:
        """Whether its records go to several streams; `stream` is then the one with least room."""

    @property
    def holds_parts(self) -> bool:
        """Whether it may hold part of a record, which only further reading can complete."""

    @property
    def held_bytes(self) -> int:
        """How many bytes it keeps in memory that are not in an entry yet."""

    def resume(self) -> None:
        """Resumes reading."""

    def stall(self) -> None:
        """Ends the sender: it was elected, and did not finish its record in time."""


class _ForStream(NamedTuple):
    """A sender of records for one of several streams."""

    stream: str
    uid: int


class Room(NamedTuple):
    """How many records, and bytes, may be read in one step."""

    records: float
    size_bytes: float


UNLIMITED = Room(inf, inf)


class Admission:
    """Decides which readers may read, and resumes those that had to pause.

    Sizes are in bytes. `memory` says how the users share it, `privileged` are root and the daemon's
    user. `stall_timeout_s` is how long an elected reader may take to finish its record. Runs on one
    event loop.
    """

    def __init__(
        self,
        committer: Committer,
        quotas: QuotaGate,
        *,
        memory: Rule,
        privileged: Collection[int],
        max_pending_stream: int,
        stall_timeout_s: float,
    ) -> None:
        self._committer = committer
        self._quotas = quotas
        self._memory = memory
        self._privileged = frozenset(privileged)
        # With less than this in memory, every user has room, however much of it is its own.
        self._enough_for_all = memory.uid_share * (memory.capacity - memory.reserved)
        self._max_pending_stream = max_pending_stream
        self._stall_timeout_s = stall_timeout_s
        self._loop = asyncio.get_running_loop()
        self._paused: dict[Reader, None] = {}
        self._elected: dict[int, tuple[Reader, asyncio.TimerHandle]] = {}  # of each holder
        self._parts: dict[int, int] = {}  # what each holder has outside of any entry
        self.held_bytes = 0  # by all readers, outside of any entry

    @property
    def asks_who_sends(self) -> bool:
        """Whether the decision depends on the sender's user, because there are quotas."""
        return self._quotas.are_set

    @property
    def paused(self) -> int:
        """How many readers are paused."""
        return len(self._paused)

    @property
    def pending_bytes(self) -> int:
        """How many bytes were received and are not durable yet."""
        return self._committer.pending_bytes + self.held_bytes

    @property
    def has_elected(self) -> bool:
        """Whether a reader is elected."""
        return bool(self._elected)

    @property
    def elected(self) -> Reader | None:
        """The reader that was elected first of those that are; None if none is."""
        return next((reader for reader, _ in self._elected.values()), None)

    @property
    def is_full(self) -> bool:
        """Whether the memory for records is used up, for one of the users at least."""
        if self.pending_bytes < self._enough_for_all:
            return False
        holders = {self._holder(uid) for uid in self._committer.uids} | self._parts.keys()
        return any(self._is_full_for(holder) for holder in holders)

    @property
    def may_lack_room(self) -> bool:
        """Whether there may be a stream that a user cannot write to now."""
        return self._quotas.are_set or not self._committer.has_room_everywhere(
            self._max_pending_stream
        )

    def room_for(self, reader: Reader) -> Room | None:
        """Returns how much `reader` may read; None for nothing."""
        if not self._stream_has_room(reader):
            return None
        if self._elected and self._is_elected(reader):
            return UNLIMITED
        if self._has_no_memory(reader):
            return None
        if not self._quotas.are_set:
            return UNLIMITED
        return None if self._quotas.wait_s(reader) else Room(*self._quotas.room(reader))

    def tokens_in_s(self, reader: Reader) -> float:
        """Returns after how many seconds `reader` has tokens of its blocking quotas; 0 for now."""
        return self._quotas.wait_s(reader)

    def may_add(self, stream: str, uid: int) -> bool:
        """Whether a user may add to one of the streams that a reader's records go to."""
        if self._committer.bytes_waiting(stream) >= self._max_pending_stream:
            return False
        return not self._quotas.wait_s(_ForStream(stream, uid))

    def narrowest(self, streams: Collection[str], uid: int) -> str:
        """Returns in which of these streams, one at least, a user has the least room.

        Its room decides whether a reader whose records go to all of them is read.
        """
        for stream in streams:
            if self._committer.bytes_waiting(stream) >= self._max_pending_stream:
                return stream
        if not self._quotas.are_set:
            return next(iter(streams))
        return max(streams, key=lambda each: self._quotas.wait_s(_ForStream(each, uid)))

    def may_read_opening(self, reader: Reader, opening: Opening) -> bool:
        """Whether the first record of a new sender, and only that, may be read.

        Only that record says which stream it is for, and that stream may have room. A status
        request is always answered.
        """
        if opening is Opening.STATUS:
            return True
        if self._has_no_memory(reader):
            return False
        return not self._quotas.wait_s(reader) or opening is Opening.HELLO

    def may_finish_records(self, reader: Reader) -> bool:
        """Whether `reader` may read up to the end of a record, but no further."""
        return (
            self._is_held_up(self._holder(reader.uid))
            and self._stream_has_room(reader)
            and not self._quotas.wait_s(reader)
        )

    def pause(self, reader: Reader) -> None:
        """Notes a reader that had to stop, to resume it when there is room."""
        self._paused[reader] = None
        if self._is_elected(reader) and not self._stream_has_room(reader):
            self._end_election(reader)  # its stream stops it, not its sender
        self._elect()
        if self._has_no_memory(reader) or not self._stream_has_room(reader):
            self._committer.commit_now()  # it waits for the room that commits make
        wait_s = self._quotas.wait_s(reader)
        if wait_s or (self._quotas.are_set and self.room_for(reader) is not None):
            # Also if its tokens came just now: nothing else would resume it.
            self._quotas.wait_for_tokens(wait_s)

    def let_go_on(self, reader: Reader | None = None) -> None:
        """Resumes all paused readers that may read, or only `reader`."""
        for paused in [reader] if reader else list(self._paused):
            wait_s = self._quotas.wait_s(paused)
            if wait_s and not self._is_elected(paused):
                self._quotas.wait_for_tokens(wait_s)
            elif self.room_for(paused) is not None:
                self._paused.pop(paused, None)
                paused.resume()
        self._elect()

    def hold(self, reader: Reader, change_bytes: int, *, finished: bool) -> None:
        """Accounts for bytes that `reader` keeps in memory outside of any entry.

        `finished` means that it finished a record; it may have started another one.
        """
        self.held_bytes += change_bytes
        if change_bytes:
            holder = self._holder(reader.uid)
            held_bytes = self._parts.get(holder, 0) + change_bytes
            if held_bytes:
                self._parts[holder] = held_bytes
            else:
                self._parts.pop(holder, None)
        if finished and self._is_elected(reader):
            self._end_election(reader)
            self.let_go_on()

    def forget(self, reader: Reader) -> None:
        """Forgets a reader that has ended, and resumes others in its place."""
        self._paused.pop(reader, None)
        if self._is_elected(reader):
            self._end_election(reader)
        if self._paused:
            self.let_go_on()

    def _stream_has_room(self, reader: Reader) -> bool:
        if reader.is_routed:
            # A failing stream stops the others of the same sender only once it is full.
            return self._committer.bytes_waiting(reader.stream) < self._max_pending_stream
        return self._committer.has_room(reader.stream, self._max_pending_stream)

    def _holder(self, uid: int) -> int:
        return PRIVILEGED if uid in self._privileged else uid

    def _bytes_of(self, holder: int) -> int:
        """Returns how much of what a holder sent is in entries and not durable yet."""
        if holder == PRIVILEGED:
            return sum(self._committer.bytes_of_uid(uid) for uid in self._privileged)
        return self._committer.bytes_of_uid(holder)

    def _limit(self, holder: int) -> float:
        """Returns below which amount in memory a holder may be read."""
        return self._memory.limit(
            self._bytes_of(holder) + self._parts.get(holder, 0),
            self._bytes_of(PRIVILEGED) + self._parts.get(PRIVILEGED, 0),
            self.pending_bytes,
            is_privileged=holder == PRIVILEGED,
        )

    def _is_full_for(self, holder: int) -> bool:
        """Whether a holder has its share in memory."""
        return self._bytes_of(holder) + self._parts.get(holder, 0) >= self._limit(holder)

    def _has_no_memory(self, reader: Reader) -> bool:
        if self._committer.pending_bytes + self.held_bytes < self._enough_for_all:
            return False
        return self._is_full_for(self._holder(reader.uid))

    def _is_held_up(self, holder: int) -> bool:
        """Whether unfinished records, not records to be committed, use up what a holder may have.

        They are its own, or those of all users fill the memory. If half of it is being committed,
        there will be room anyway; reading further would take in as much more from each sender as
        its socket holds.
        """
        if not self._is_full_for(holder):
            return False
        failing_bytes = self._committer.failing_bytes()

        def fill(parts_bytes: int, queued_bytes: int, half_bytes: float) -> bool:
            return parts_bytes >= half_bytes and queued_bytes - failing_bytes < half_bytes

        own_parts, own_limit = self._parts.get(holder, 0), self._limit(holder)
        return fill(own_parts, self._bytes_of(holder), own_limit / 2) or fill(
            self.held_bytes, self._committer.pending_bytes, self._memory.capacity / 2
        )

    def _elect(self) -> None:
        if not self._paused or self.pending_bytes < self._enough_for_all:
            return
        held_up: dict[int, bool] = {}
        largest: dict[int, Reader] = {}
        for paused in self._paused:
            holder = self._holder(paused.uid)
            if holder in self._elected or not paused.holds_parts:
                continue
            if holder not in held_up:
                held_up[holder] = self._is_held_up(holder)
            # A reader stopped by its quota or its stream would only be closed by the timeout.
            if (
                held_up[holder]
                and self._stream_has_room(paused)
                and not self._quotas.wait_s(paused)
                and (holder not in largest or paused.held_bytes > largest[holder].held_bytes)
            ):
                largest[holder] = paused
        for holder, elected in largest.items():
            if len(self._elected) >= _ELECTED_MAX:
                return
            timer = self._loop.call_later(self._stall_timeout_s, elected.stall)
            self._elected[holder] = (elected, timer)
            del self._paused[elected]
            elected.resume()

    def _is_elected(self, reader: Reader) -> bool:
        found = self._elected.get(self._holder(reader.uid))
        return found is not None and found[0] is reader

    def _end_election(self, reader: Reader) -> None:
        _, timer = self._elected.pop(self._holder(reader.uid))
        timer.cancel()
