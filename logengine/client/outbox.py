"""The records that a client took and that are not known to be durable, in memory and in a spool.

Each record gets the next *place*, from 1. Its *number* is the producer's number in the protocol;
it differs from the place by an `offset` that the first welcome determines. Places in order:

    acked        records up to here are durable
    sent         records up to here were given to the current connection
    spooled      records after `acked` up to here are in the spool; later ones are in memory
    taken        the last record

No I/O and no clock. All operations are O(1) in the records held, except those that start a new
connection or go to the spool, which are O(bytes held).
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from logengine.client.encoding import encode_record
from logengine.errors import ProducerFenced, ProtocolError
from logengine.format.record import count_lines, split_lines

# Acks free memory chunk by chunk.
CHUNK_BYTES = 64 * 1024
REFUSALS_MAX = 100


class Chunk(NamedTuple):
    """Lines with their newlines; the non-blank ones have the places `first` to `last`."""

    first: int
    last: int
    lines: bytes

    def behind(self, place: int) -> "Chunk":
        """Returns the part of the chunk after `place`."""
        if place < self.first:
            return self
        lines = list(split_lines(self.lines))[place + 1 - self.first :]
        return Chunk(place + 1, self.last, b"".join(line + b"\n" for line in lines))


class Refusal(NamedTuple):
    """Records that the daemon did not store, and its error word, such as `over_quota`."""

    first: int
    last: int
    reason: str


class Numbering(msgspec.Struct, frozen=True):
    """How places map to numbers: number = place + `offset`, for places up to `until`.

    `offset` None: unknown, and none of the records was ever sent. `until` None: the offset applies
    to all records; otherwise the records after `until` were never sent.
    """

    offset: int | None = None
    until: int | None = None


NEVER_SENT = Numbering()


def drops_record(count: int) -> dict[str, object]:
    """Returns the record that reports `count` dropped records in the stream."""
    return {"level": "warning", "event": "records_dropped", "dropped": count}


class Outbox:
    """The pending records; see the module. `records_max` and `bytes_max` bound the memory.

    `spooled_first` to `spooled_last` are the places of the records that an earlier process left in
    the spool, including lost ones. `numbering` is what that process knew about their numbers.
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
        self.dropped_unsaid = 0  # dropped records that no record reports yet
        self.refused = 0
        self.refusals: deque[Refusal] = deque(maxlen=REFUSALS_MAX)  # the latest ones

    @property
    def held_records(self) -> int:
        """How many records are in memory, roughly: a chunk is kept until all of it is acked."""
        return self.taken - self.spooled

    @property
    def pending(self) -> int:
        """How many of the records taken are not known to be durable."""
        return self.taken - self.acked

    @property
    def in_flight(self) -> int:
        """How many of the records given to the connection are not acknowledged."""
        return self.sent - self.acked

    @property
    def sent_unacked(self) -> int:
        """How many records were ever sent and are not acknowledged: they may be stored."""
        until = self.numbering.until
        return max(self._sent_ever, until or 0) - self.acked

    @property
    def is_worth_sending(self) -> bool:
        """Whether to send now; if not, waiting records are sent once those in flight are acked.

        The pace of the acks combines many small records into large writes, as the daemon's commits
        combine them into large batches. A record every millisecond does not wake the sender each
        time.
        """
        if not self.in_flight:
            return self.taken > self.sent
        return self.sends_from_spool or self.held_bytes - self.in_flight_bytes >= CHUNK_BYTES

    @property
    def worth_sending_bytes(self) -> int:
        """At how many bytes in memory it becomes worth sending, in the current state."""
        return self.in_flight_bytes + CHUNK_BYTES if self.in_flight else 1

    def has_room(self, lines_bytes: int, count: int = 1) -> bool:
        """Whether there is room; input larger than the bounds fits only into empty memory."""
        if not self.held_bytes:
            return True
        return (
            self.held_bytes + lines_bytes <= self._bytes_max
            and self.held_records + count <= self._records_max
        )

    def try_take(self, line: bytes) -> int:
        """Takes one record, a non-blank line with its newline. Returns its place.

        Returns 0 if there is no room for it.
        """
        size = len(line)
        held_bytes = self.held_bytes + size
        # `has_room`, inlined: `send` pays for this in the application.
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
        """Takes records already admitted, each a non-blank line with its newline."""
        self._end_chunk()
        size = sum(map(len, lines))
        self.held_bytes += size
        # Splits by mean length, because memory is freed chunk by chunk.
        count = max(1, CHUNK_BYTES * len(lines) // max(1, size))
        for start in range(0, len(lines), count):
            some = lines[start : start + count]
            self._waiting.append(
                Chunk(self.taken + 1 + start, self.taken + start + len(some), b"".join(some))
            )
        self.taken += len(lines)

    def take_lines(self, lines: bytes) -> int:
        """Takes complete lines. Returns the place of the last one; blank lines have none."""
        self._end_chunk()
        first, self.taken = self.taken + 1, self.taken + count_lines(lines)
        if self.taken >= first:
            self._waiting.append(Chunk(first, self.taken, lines))
            self.held_bytes += len(lines)
        return self.taken

    def drop(self, count: int = 1) -> None:
        """Counts records dropped for lack of room."""
        self.dropped += count
        self.dropped_unsaid += count

    def tell_of_drops(self, *, regardless: bool = False) -> None:
        """Takes a record that reports the drops, if there is room or `regardless` of room."""
        if self.dropped_unsaid:
            line = encode_record(drops_record(self.dropped_unsaid))
            if regardless:
                self.take_lines(line)
            elif not self.try_take(line):
                return
            self.dropped_unsaid = 0

    def hello_first(self) -> int | None:
        """The lowest number still held, or the next one; None while the offset is unknown."""
        offset = self.numbering.offset
        return None if offset is None else self.acked + 1 + offset

    def welcome(self, next_number: int) -> None:
        """Starts a connection: all numbers below `next_number` are durable.

        Records that are not durable are sent again. Raises `ProducerFenced` if the daemon has
        numbers that were never sent, and `ProtocolError` if it asks for acknowledged records.
        """
        offset, until = self.numbering.offset, self.numbering.until
        if offset is None:
            offset = next_number - 1 - self.acked
        durable = next_number - 1 - offset
        if durable < self.acked and until is not None:
            # The earlier process's records start later: a damaged spool lost the first ones.
            durable, offset = self.acked, next_number - 1 - self.acked
        if durable < self.acked:
            raise ProtocolError(
                f"the daemon asks for record {next_number} of this producer, "
                f"but it has acknowledged all records up to {self.acked + offset}"
            )
        sent_at_most = self._sent_ever if until is None else max(until, self._sent_ever)
        if durable > sent_at_most:
            # An earlier process may have sent more than it left in the spool, and another sender
            # may have sent while no record of ours was in flight. Our numbers start after theirs.
            if until is None and self.acked < self._sent_ever:
                raise ProducerFenced(
                    f"another sender has used this producer's name: the daemon has records up to "
                    f"{next_number - 1}, this client sent up to {self._sent_ever + offset}"
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
        """Returns the place of the record with this number. Requires a welcome."""
        assert self.numbering.offset is not None
        return number - self.numbering.offset

    def acknowledge(self, place: int) -> None:
        """Marks all records up to `place` as durable and frees them."""
        self.acked = max(self.acked, place)
        self.spooled = max(self.spooled, self.acked)
        self._sent_ever = max(self._sent_ever, self.acked)
        self._let_go(self.acked)

    def refuse(self, first: int, last: int, reason: str) -> None:
        """Counts records that the daemon refused; it may repeat that on each connection."""
        if self.refusals:
            first = max(first, self.refusals[-1].last + 1)
        if first <= last:
            self.refusals.append(Refusal(first, last, reason))
            self.refused += last + 1 - first

    @property
    def sends_from_spool(self) -> bool:
        """Whether the next record to send is in the spool: read it, then call `spool_sent`."""
        return self.sent < self.spooled

    def spool_sent(self, chunk: Chunk) -> None:
        """Notes that `chunk`, which starts right after `sent`, is being sent from the spool."""
        assert chunk.first == self.sent + 1
        self._note_sent(chunk.last)

    def skip(self, place: int) -> None:
        """Skips records up to `place` that are lost in the spool. Nothing may be in flight.

        Lost records keep their numbers, so the application's numbers and the daemon's stay equal.
        The next records must go out on a new connection, whose hello skips the lost numbers.
        """
        assert self.sent == self.acked
        self.sent = place
        self.acknowledge(place)

    def next_chunk(self) -> Chunk | None:
        """Returns the next chunk to send from memory and marks it as sent; None if none is left."""
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
        """Returns all chunks in memory that are not known to be durable, for the spool."""
        self._end_chunk()
        chunks = [chunk.behind(self.acked) for chunk in (*self._in_flight, *self._waiting)]
        return [chunk for chunk in chunks if chunk.first <= chunk.last]

    def is_spooled(self, place: int) -> None:
        """Notes that the spool contains everything up to `place`, and frees that memory."""
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
