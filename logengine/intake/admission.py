"""Decides which senders may be read: by the room of their stream, by memory, and by quotas.

A sender is not read while its stream fails or has `max_pending_stream` bytes waiting, nor while all
streams together have `max_pending`. The kernel's buffers then fill up, and senders block.

Unfinished records may take most of that memory, and no commit frees them. Then only bytes that
complete records are read from the kernel's buffers, which reduces what is held, and one sender at a
time is elected to continue with a record that is larger than its kernel buffer.

A sender over a blocking quota is not read until it has tokens again.
"""

import asyncio
from math import inf
from typing import NamedTuple, Protocol

from logengine.intake.quota_gate import QuotaGate
from logengine.protocols.wire import Opening
from logengine.store.committer import Committer


class Reader(Protocol):
    """An object that reads a sender's socket while admission permits it."""

    stream: str
    uid: int

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


class Room(NamedTuple):
    """How many records, and bytes, may be read in one step."""

    records: float
    size_bytes: float


UNLIMITED = Room(inf, inf)


class Admission:
    """Decides which readers may read, and resumes those that had to pause.

    Sizes are in bytes. `stall_timeout_s` is how long an elected reader may take to finish its
    record. Runs on one event loop.
    """

    def __init__(
        self,
        committer: Committer,
        quotas: QuotaGate,
        *,
        max_pending: int,
        max_pending_stream: int,
        stall_timeout_s: float,
    ) -> None:
        self._committer = committer
        self._quotas = quotas
        self._max_pending = max_pending
        self._max_pending_stream = max_pending_stream
        self._stall_timeout_s = stall_timeout_s
        self._loop = asyncio.get_running_loop()
        self._paused: dict[Reader, None] = {}
        self._stall_timer: asyncio.TimerHandle | None = None
        self.elected: Reader | None = None
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
    def is_full(self) -> bool:
        """Whether the memory for records (`max_pending`) is used up."""
        return self._committer.pending_bytes + self.held_bytes >= self._max_pending

    def room_for(self, reader: Reader) -> Room | None:
        """Returns how much `reader` may read; None for nothing."""
        if not self._stream_has_room(reader.stream):
            return None
        if reader is self.elected:
            return UNLIMITED
        if self.is_full or self._quotas.wait_s(reader):
            return None
        return Room(*self._quotas.room(reader)) if self._quotas.are_set else UNLIMITED

    def may_read_opening(self, reader: Reader, opening: Opening) -> bool:
        """Whether the first record of a new sender, and only that, may be read.

        Only that record says which stream it is for, and that stream may have room. A status
        request is always answered.
        """
        if opening is Opening.STATUS:
            return True
        if self.is_full:
            return False
        return not self._quotas.wait_s(reader) or opening is Opening.HELLO

    def may_finish_records(self, reader: Reader) -> bool:
        """Whether `reader` may read up to the end of a record, but no further."""
        return (
            self._is_held_up()
            and self._stream_has_room(reader.stream)
            and not self._quotas.wait_s(reader)
        )

    def pause(self, reader: Reader) -> None:
        """Notes a reader that had to stop, to resume it when there is room."""
        self._paused[reader] = None
        if reader is self.elected and not self._stream_has_room(reader.stream):
            self._end_election()  # its stream stops it, not its sender
        self._elect()
        if self.is_full or not self._stream_has_room(reader.stream):
            self._committer.commit_now()  # it waits for the room that commits make
        wait_s = self._quotas.wait_s(reader)
        if wait_s or (self._quotas.are_set and self.room_for(reader) is not None):
            # Also if its tokens came just now: nothing else would resume it.
            self._quotas.wait_for_tokens(wait_s)

    def let_go_on(self, reader: Reader | None = None) -> None:
        """Resumes all paused readers that may read, or only `reader`."""
        for paused in [reader] if reader else list(self._paused):
            wait_s = self._quotas.wait_s(paused)
            if wait_s and paused is not self.elected:
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
        if finished and reader is self.elected:
            self._end_election()
            self.let_go_on()

    def forget(self, reader: Reader) -> None:
        """Forgets a reader that has ended, and resumes others in its place."""
        self._paused.pop(reader, None)
        if reader is self.elected:
            self._end_election()
        if self._paused:
            self.let_go_on()

    def _stream_has_room(self, stream: str) -> bool:
        return self._committer.has_room(stream, self._max_pending_stream)

    def _is_held_up(self) -> bool:
        """Whether unfinished records, not records to be committed, use up the memory.

        If half of the memory is being committed, there will be room anyway; reading further would
        take in as much more from each sender as its socket holds.
        """
        half_bytes = self._max_pending / 2
        if not self.is_full or self.held_bytes < half_bytes:
            return False
        return self._committer.pending_bytes - self._committer.failing_bytes() < half_bytes

    def _elect(self) -> None:
        if self.elected or not self._paused or not self._is_held_up():
            return
        # A reader stopped by its quota or its stream would only be closed by the timeout.
        elected = max(
            (
                paused
                for paused in self._paused
                if paused.holds_parts
                and self._stream_has_room(paused.stream)
                and not self._quotas.wait_s(paused)
            ),
            key=lambda reader: reader.held_bytes,
            default=None,
        )
        if elected is None:
            return
        self.elected = elected
        self._stall_timer = self._loop.call_later(self._stall_timeout_s, elected.stall)
        del self._paused[elected]
        elected.resume()

    def _end_election(self) -> None:
        self.elected = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
