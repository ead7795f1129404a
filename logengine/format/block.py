"""Records of a stream: one by one, or many as the bytes that they are stored as.

Whoever reads much handles blocks, and splits into records what it must. No I/O.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from logengine.errors import DamagedSegment
from logengine.format.cursor import Cursor
from logengine.format.record import ENVELOPE_NAMES
from logengine.format.segment import count_newlines, timestamp_of

if TYPE_CHECKING:
    from decimal import Decimal

# Pieces of this size stay in the processor's caches, and below what malloc maps anew.
_PIECE_BYTES = 32 * 1024
# How each stored line begins.
_OPENING = b'{"%s":"' % ENVELOPE_NAMES[0].encode()
_fields_decoder = msgspec.json.Decoder(dict[str, Any])


class Record(msgspec.Struct, frozen=True, dict=True):
    """One record: `line` is its stored line, without a newline.

    Of the line nothing is decoded before it is asked for. A damaged line is never served, so that
    `line` is a JSON object whose first key is `_ts`.
    """

    stream: str
    seq: int
    line: bytes

    @property
    def cursor(self) -> Cursor:
        """The position of a reader that has seen this record and all before it."""
        return Cursor(self.stream, self.seq)

    @property
    def timestamp(self) -> str:
        """When the daemon took the record, `_ts`: RFC 3339 in UTC, always 27 characters.

        The order of such strings is the order of the times.
        """
        return timestamp_of(self.line)

    @property
    def taken_at(self) -> datetime:
        """`timestamp` as an aware `datetime`, in UTC."""
        return datetime.fromisoformat(self.timestamp)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The record as a dict: the fields of the envelope first, then the sender's.

        Decoded once. Of a key that is there twice, the last one counts. A number that is too large
        for a float is infinite, and an integer of thousands of digits a `Decimal`. Raises
        `RecursionError` for a record that is nested deeper than Python's recursion limit allows.
        """
        try:
            return _fields_decoder.decode(self.line)
        except msgspec.MsgspecError:
            # Valid JSON that msgspec does not take: large numbers, and half of a surrogate pair.
            import json

            fields: dict[str, Any] = json.loads(self.line, parse_int=_parse_integer)
            return fields

    @property
    def json(self) -> bytes:
        """The record with `_stream` and `_seq` in front, as `logengine cat --format json` has it.

        One JSON object, without a newline.
        """
        return with_place(self)


class Block(msgspec.Struct, frozen=True):
    """`count` consecutive records of one stream from `first` on: `body`, with newlines."""

    stream: str
    first: int
    count: int
    body: bytes

    def lines(self) -> list[bytes]:
        """The lines, without newlines. Raises `DamagedSegment` if they are not `count`."""
        lines = self.body.split(b"\n")
        if lines.pop() or len(lines) != self.count:
            raise self._damage()
        return lines

    def records(self) -> Iterator[Record]:
        """The records, one by one. Raises `DamagedSegment`, as `lines`."""
        for seq, line in enumerate(self.lines(), self.first):
            yield Record(self.stream, seq, line)

    def last_timestamp(self) -> str:
        """The `_ts` of the last record; there must be one."""
        return timestamp_of(self.body[self.body.rfind(b"\n", 0, -1) + 1 :])

    def begin_at(self, seq: int) -> "Block":
        """What of the block is at or behind `seq`."""
        skipped = seq - self.first
        if skipped <= 0:
            return self
        rest = self.body.split(b"\n", skipped)[-1]
        return Block(self.stream, seq, self.count - skipped, rest)

    def end_before(self, seq: int) -> "Block":
        """What of the block is before `seq`."""
        kept = max(0, seq - self.first)
        if kept >= self.count:
            return self
        rest = self.body.split(b"\n", kept)[-1]
        return Block(self.stream, self.first, kept, self.body[: len(self.body) - len(rest)])

    def parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator["Block"]:
        """The whole lines in each range of the body's bytes, start to stop, in order.

        An empty range gives nothing.
        """
        seq, place = self.first, 0
        for start, stop in ranges:
            if start == stop:
                continue
            seq += count_newlines(self.body[place:start])
            body = self.body[start:stop]
            count = count_newlines(body)
            yield Block(self.stream, seq, count, body)
            seq, place = seq + count, stop

    def with_places(self) -> Iterator[bytes]:
        """The records with `_stream` and `_seq` in front, as NDJSON, in pieces.

        Gives the same bytes as `with_place` for each. Raises `DamagedSegment` if they are
        not `count` records, or not stored ones.
        """
        form = b'\n{"_stream":"%s","_seq":%%d,%s' % (self.stream.encode(), _OPENING[1:])
        seq = self.first
        for piece in _pieces(self.body):
            if not (piece.startswith(_OPENING) and piece.endswith(b"\n")):
                raise self._damage()
            rests = piece[len(_OPENING) : -1].split(b"\n" + _OPENING)
            parts = [b""] * (2 * len(rests) + 1)
            parts[0:-1:2] = map(form.__mod__, range(seq, seq + len(rests)))
            parts[1::2] = rests
            parts[0] = parts[0][1:]
            parts[-1] = b"\n"
            yield b"".join(parts)
            seq += len(rests)
        if seq != self.first + self.count:
            raise self._damage()

    def _damage(self) -> DamagedSegment:
        return DamagedSegment(
            self.stream,
            f"from {self.first} on there are not the {self.count} records that its header says",
        )


def _parse_integer(digits: str) -> "int | Decimal":
    from decimal import Decimal

    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return Decimal(digits)


def with_place(record: Record, more: bytes = b"") -> bytes:
    """The stored line with `_stream` and `_seq` in front, as one JSON object.

    `more` are other keys with their values, to come behind those; each ends with a comma.
    """
    return b'{"_stream":"%s","_seq":%d,%s%s' % (
        record.stream.encode(),
        record.seq,
        more,
        record.line[1:],
    )


def runs(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers, in order, as ranges of neighbours: first and last."""
    first = last = None
    for seq in seqs:
        if last is not None and seq == last + 1:
            last = seq
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = seq
    if first is not None and last is not None:
        yield first, last


def _pieces(body: bytes) -> Iterator[bytes]:
    """A body, cut behind lines."""
    start = 0
    while start < len(body):
        stop = body.find(b"\n", start + _PIECE_BYTES) + 1 or len(body)
        yield body[start:stop]
        start = stop
