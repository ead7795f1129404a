"""What a client took and does not know to be durable: in memory, and behind it in a spool.

Every record that is taken gets the next *place*, from 1. Its *number* is the producer's own,
as the protocol has it, and differs from the place by an `offset` that the first welcome tells.
Places in order:

    acked        all up to here is durable
    sent         all up to here was given to the connection that is open now
    spooled      what is behind `acked`, up to here, is in the spool; behind it, in memory
    taken        the last one

No I/O and no clock. All operations are O(1) in the records held, but those that begin a
connection again or go to the spool, which are O(bytes held).
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from logengine.client.encoding import encode_record
from logengine.errors import ProducerFenced, ProtocolError
from logengine.format.record import count_lines, split_lines

# Memory is given free chunk by chunk as acks come.
CHUNK_BYTES = 64 * 1024
REFUSALS_MAX = 100


class Chunk(NamedTuple):
    """Lines with their newlines; `first` to `last` are the places of those not blank."""

    first: int
    last: int
    lines: bytes

    def behind(self, place: int) -> "Chunk":
        """What of it is behind `place`."""
        if place < self.first:
            return self
        lines = list(split_lines(self.lines))[place + 1 - self.first :]
        return Chunk(place + 1, self.last, b"".join(line + b"\n" for line in lines))


class Refusal(NamedTuple):
    """Records that the daemon did not store, and its word for why, such as `over_quota`."""

    first: int
    last: int
    reason: str


class Numbering(msgspec.Struct, frozen=True):
    """How places become numbers: number = place + `offset`, for places up to `until`.

    `offset` None: it is not known, and none of the records was ever sent. `until` None: it
    holds for all; else what is behind was never sent.
    """

    offset: int | None = None
    until: int | None = None


NEVER_SENT = Numbering()


def drops_record(count: int) -> dict[str, object]:
    """What says in the stream that so many records are missing there."""
    return {"level": "warning", "event": "records_dropped", "dropped": count}


class Outbox:
    """See the module. `records_max` and `bytes_max` bound what is in memory.

    `spooled_first` to `spooled_last` are the places of what an earlier process left in the
    spool, lost ones among them, and `numbering` is what it knew of their numbers.
    """

    def __init__(
        self,
        records_max: int,
        bytes_max: int,
        *,
        spooled_first: int = 1,
        spooled_last: int = 0,
        numbering: Numbering = NEVER_SENT,
    ) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self.acked = self.sent = spooled_first - 1
        self.spooled = self.taken = spooled_last
        self.numbering = numbering
        self._sent_ever = spooled_first - 1
        self._in_flight: deque[Chunk] = deque()
        self._waiting: deque[Chunk] = deque()
        self._fresh: list[bytes] = []
        self._fresh_bytes = 0
        self.held_bytes = 0
        self.in_flight_bytes = 0
        self.dropped = 0
        self.dropped_unsaid = 0  # those of which no record tells yet
        self.refused = 0
        self.refusals: deque[Refusal] = deque(maxlen=REFUSALS_MAX)  # the latest of them

    @property
    def held_records(self) -> int:
        """How many records are in memory, about: a chunk is kept until all of it is acked."""
        return self.taken - self.spooled

    @property
    def pending(self) -> int:
        """How many of the records that were taken are not known to be durable."""
        return self.taken - self.acked

    @property
    def in_flight(self) -> int:
        """How many of the records given to the connection are not acknowledged."""
        return self.sent - self.acked

    @property
    def is_worth_sending(self) -> bool:
        """Whether to send what waits now, or with more of it once what is under way is acked.

        The pace of the acks makes large writes of many small records, as the daemon's commits
        make large batches: who sends one record every millisecond is not woken for each.
        """
        if not self.in_flight:
            return self.taken > self.sent
        return self.sends_from_spool or self.held_bytes - self.in_flight_bytes >= CHUNK_BYTES

    @property
    def worth_sending_bytes(self) -> int:
        """From how much in memory on it is worth sending, as it stands."""
        return self.in_flight_bytes + CHUNK_BYTES if self.in_flight else 1

    def has_room(self, lines_bytes: int, count: int = 1) -> bool:
        """Whether so much may be taken; what is larger than the bounds has the memory alone."""
        if not self.held_bytes:
            return True
        return (
            self.held_bytes + lines_bytes <= self._bytes_max
            and self.held_records + count <= self._records_max
        )

    def try_take(self, line: bytes) -> int:
        """Takes one record, a line with its newline and not blank; gives its place.

        0 if there is no room for it.
        """
        size = len(line)
        held_bytes = self.held_bytes + size
        # `has_room`, written out: this is what `send` costs the application.
        if self.held_bytes and (
            held_bytes > self._bytes_max or self.taken - self.spooled >= self._records_max
        ):
            return 0
        self.held_bytes = held_bytes
        self._fresh.append(line)
        self.taken = taken = self.taken + 1
        self._fresh_bytes = fresh_bytes = self._fresh_bytes + size
        if fresh_bytes >= CHUNK_BYTES:
            self._end_chunk()
        return taken

    def take_batch(self, lines: Sequence[bytes]) -> None:
        """Takes records that had room when they came, each a line with its newline, not blank."""
        self._end_chunk()
        size = sum(map(len, lines))
        self.held_bytes += size
        # By their mean length: memory is given free chunk by chunk.
        count = max(1, CHUNK_BYTES * len(lines) // max(1, size))
        for start in range(0, len(lines), count):
            some = lines[start : start + count]
            self._waiting.append(
                Chunk(self.taken + 1 + start, self.taken + start + len(some), b"".join(some))
            )
        self.taken += len(lines)

    def take_lines(self, lines: bytes) -> int:
        """Takes complete lines; gives the place of the last. Blank ones have none."""
        self._end_chunk()
        first, self.taken = self.taken + 1, self.taken + count_lines(lines)
        if self.taken >= first:
            self._waiting.append(Chunk(first, self.taken, lines))
            self.held_bytes += len(lines)
        return self.taken

    def drop(self, count: int = 1) -> None:
        """Counts records for which there was no room."""
        self.dropped += count
        self.dropped_unsaid += count

    def tell_of_drops(self, *, regardless: bool = False) -> None:
        """Takes a record that says how many were dropped, if there is room, or `regardless`."""
        if self.dropped_unsaid:
            line = encode_record(drops_record(self.dropped_unsaid))
            if regardless:
                self.take_lines(line)
            elif not self.try_take(line):
                return
            self.dropped_unsaid = 0

    def hello_first(self) -> int | None:
        """The lowest number still held, or the next to come; None while that is not known."""
        offset = self.numbering.offset
        return None if offset is None else self.acked + 1 + offset

    def welcome(self, next_number: int) -> None:
        """Begins a connection: all numbers below `next_number` are durable.

        What is not durable is to be sent again. Raises `ProducerFenced` if the daemon knows
        numbers that were never sent, and `ProtocolError` if it asks for what it acknowledged.
        """
        offset, until = self.numbering.offset, self.numbering.until
        if offset is None:
            offset = next_number - 1 - self.acked
        durable = next_number - 1 - offset
        if durable < self.acked and until is not None:
            # What an earlier process left begins further on: a damaged spool lost its first.
            durable, offset = self.acked, next_number - 1 - self.acked
        if durable < self.acked:
            raise ProtocolError(
                f"the daemon asks for record {next_number} of this producer, "
                f"after all up to {self.acked + offset} was acknowledged"
            )
        sent_at_most = self._sent_ever if until is None else max(until, self._sent_ever)
        if durable > sent_at_most:
            # An earlier process may have sent more than it left in the spool, and so may
            # anybody else while nothing of ours is under way: our numbers begin behind.
            if until is None and self.acked < self._sent_ever:
                raise ProducerFenced(
                    f"another sender has used this producer's name: the daemon has records up "
                    f"to {next_number - 1} of it, this client sent {self._sent_ever + offset}"
                )
            durable = max(sent_at_most, self.acked)
            offset = next_number - 1 - durable
        self.acknowledge(durable)
        self.numbering = Numbering(offset)
        self.sent = self.acked
        self._end_chunk()
        self._waiting.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self.in_flight_bytes = 0

    def number_to_place(self, number: int) -> int:
        """The place of the record with a number, after a welcome."""
        assert self.numbering.offset is not None
        return number - self.numbering.offset

    def acknowledge(self, place: int) -> None:
        """All up to `place` is durable: lets go of it."""
        self.acked = max(self.acked, place)
        self.spooled = max(self.spooled, self.acked)
        self._sent_ever = max(self._sent_ever, self.acked)
        self._let_go(self.acked)

    def refuse(self, first: int, last: int, reason: str) -> None:
        """The daemon does not store these places, and may say so again on each connection."""
        if self.refusals:
            first = max(first, self.refusals[-1].last + 1)
        if first <= last:
            self.refusals.append(Refusal(first, last, reason))
            self.refused += last + 1 - first

    @property
    def sends_from_spool(self) -> bool:
        """Whether what is to be sent next is in the spool: give it to `spool_sent`."""
        return self.sent < self.spooled

    def spool_sent(self, chunk: Chunk) -> None:
        """`chunk`, which begins behind `sent`, was read from the spool and is being sent."""
        assert chunk.first == self.sent + 1
        self._note_sent(chunk.last)

    def skip(self, place: int) -> None:
        """All up to `place` is lost in the spool; nothing that was sent may be under way.

        What is lost keeps its numbers, so that those of the application and of the daemon stay
        the same. What follows is to be sent on a new connection, whose hello leaves them out.
        """
        assert self.sent == self.acked
        self.sent = place
        self.acknowledge(place)

    def next_chunk(self) -> Chunk | None:
        """What is to be sent next, from memory; it counts as sent. None if there is none."""
        if not self._waiting:
            self._end_chunk()
            if not self._waiting:
                return None
        whole = self._waiting.popleft()
        chunk = whole.behind(self.sent)
        self.held_bytes -= len(whole.lines) - len(chunk.lines)
        self._in_flight.append(chunk)
        self.in_flight_bytes += len(chunk.lines)
        self._note_sent(chunk.last)
        return chunk

    def to_spool(self) -> Sequence[Chunk]:
        """All that is in memory and not known to be durable, for the spool to keep."""
        self._end_chunk()
        chunks = [chunk.behind(self.acked) for chunk in (*self._in_flight, *self._waiting)]
        return [chunk for chunk in chunks if chunk.first <= chunk.last]

    def is_spooled(self, place: int) -> None:
        """The spool holds all up to `place`: memory lets go of it."""
        self.spooled = max(self.spooled, place)
        self._let_go(place)

    def _let_go(self, place: int) -> None:
        while self._in_flight and self._in_flight[0].last <= place:
            size = len(self._in_flight.popleft().lines)
            self.in_flight_bytes -= size
            self.held_bytes -= size
        while self._waiting and self._waiting[0].last <= place:
            self.held_bytes -= len(self._waiting.popleft().lines)

    def _note_sent(self, place: int) -> None:
        self.sent = place
        self._sent_ever = max(self._sent_ever, place)

    def _end_chunk(self) -> None:
        if self._fresh:
            first = self.taken + 1 - len(self._fresh)
            self._waiting.append(Chunk(first, self.taken, b"".join(self._fresh)))
            self._fresh = []
            self._fresh_bytes = 0
