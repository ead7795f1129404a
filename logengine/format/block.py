"""Records of a stream: one at a time, or many in their stored form, as bytes.

Bulk readers work on blocks and split them into records only where they must. No I/O.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from logengine.errors import DamagedSegment
from logengine.format.cursor import Cursor
from logengine.format.json_object import OPENING
from logengine.format.segment import count_newlines, timestamp_of

if TYPE_CHECKING:
    from decimal import Decimal

# Pieces of this size stay in the CPU caches and below malloc's mmap threshold.
_PIECE_BYTES = 32 * 1024
_fields_decoder = msgspec.json.Decoder(dict[str, Any])


class Record(msgspec.Struct, frozen=True, dict=True):
    """One record: `line` is its stored line, without a newline.

    The line is decoded only on request. A damaged line is never served: `line` is always a JSON
    object whose first key is `_ts`.
    """

    stream: str
    seq: int
    line: bytes

    @property
    def cursor(self) -> Cursor:
        """The position of a reader that has seen this record and all earlier ones."""
        return Cursor(self.stream, self.seq)

    @property
    def timestamp(self) -> str:
        """When the daemon received the record, `_ts`: RFC 3339 in UTC, always 27 characters.

        Such strings sort in the order of their times.
        """
        return timestamp_of(self.line)

    @property
    def taken_at(self) -> datetime:
        """`timestamp` as an aware `datetime`, in UTC."""
        return datetime.fromisoformat(self.timestamp)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The record as a dict: the fields of the envelope first, then the sender's.

        Decoded once. If a key occurs twice, the last one counts. A number too large for a float
        becomes infinity, and an integer of thousands of digits a `Decimal`. Raises
        `RecursionError` for a record nested deeper than Python's recursion limit allows.
        """
        try:
            return _fields_decoder.decode(self.line)
        except msgspec.MsgspecError:
            # Valid JSON that msgspec rejects: large numbers, and half of a surrogate pair.
            import json

            fields: dict[str, Any] = json.loads(self.line, parse_int=_parse_integer)
            return fields

    @property
    def json(self) -> bytes:
        """The record as `logengine cat --format json` prints it: `_stream` and `_seq` in front.

        One JSON object, without a newline.
        """
        return with_place(self)


class Rows(NamedTuple):
    """Some records, to be shown: for each its stream, its number and its stored line.

    `streams` and `seqs` may have no end. `body` is all lines, each with its newline.
    """

    streams: Iterable[str]
    seqs: Iterable[int]
    lines: Sequence[bytes]
    body: bytes


class Block(msgspec.Struct, frozen=True):
    """`count` consecutive records of one stream, starting at `first`: `body`, with newlines."""

    stream: str
    first: int
    count: int
    body: bytes

    def lines(self) -> list[bytes]:
        """Returns the lines, without newlines. Raises `DamagedSegment` unless they are `count`."""
        lines = self.body.split(b"\n", self.count + 1)
        if lines.pop() or len(lines) != self.count:
            raise self._damage()
        return lines

    def records(self) -> Iterator[Record]:
        """Yields the records. Raises `DamagedSegment`, as `lines` does."""
        for seq, line in enumerate(self.lines(), self.first):
            yield Record(self.stream, seq, line)

    def rows(self) -> Iterator[Rows]:
        """Yields the records as rows, some at a time. Raises `DamagedSegment`, as `lines` does."""
        seq = self.first
        for piece in _pieces(self.body):
            lines = piece.split(b"\n")
            if lines.pop():
                raise self._damage()
            yield Rows(repeat(self.stream), count(seq), lines, piece)
            seq += len(lines)
        if seq != self.first + self.count:
            raise self._damage()

    def last_timestamp(self) -> str:
        """Returns the `_ts` of the last record; the block must not be empty."""
        return timestamp_of(self.body[self.body.rfind(b"\n", 0, -1) + 1 :])

    def begin_at(self, seq: int) -> "Block":
        """Returns the part of the block from `seq` on."""
        skipped = seq - self.first
        if skipped <= 0:
            return self
        rest = self.body.split(b"\n", skipped)[-1]
        return Block(self.stream, seq, self.count - skipped, rest)

    def end_before(self, seq: int) -> "Block":
        """Returns the part of the block before `seq`."""
        kept = max(0, seq - self.first)
        if kept >= self.count:
            return self
        rest = self.body.split(b"\n", kept)[-1]
        return Block(self.stream, self.first, kept, self.body[: len(self.body) - len(rest)])

    def parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator["Block"]:
        """Yields the lines in each range of the body's bytes, given as (start, stop), in order.

        Ranges must fall on line boundaries. An empty range yields nothing.
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
        """Yields the records with `_stream` and `_seq` in front, as NDJSON, in pieces.

        The bytes are those of `with_place` for each record. Raises `DamagedSegment` if the body
        is not `count` stored records.
        """
        form = b'\n{"_stream":"%s","_seq":%%d,%s' % (self.stream.encode(), OPENING[1:])
        seq = self.first
        for piece in _pieces(self.body):
            if not (piece.startswith(OPENING) and piece.endswith(b"\n")):
                raise self._damage()
            rests = piece[len(OPENING) : -1].split(b"\n" + OPENING)
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
            f"the records from {self.first} on are not the {self.count} that its header states",
        )


def _parse_integer(digits: str) -> "int | Decimal":
    from decimal import Decimal

    try:
        return int(digits)
    except ValueError:  # more digits than Python converts to an int
        return Decimal(digits)


def with_place(record: Record, more: bytes = b"") -> bytes:
    """Returns the stored line with `_stream` and `_seq` in front, as one JSON object.

    `more` contains further keys with their values to put after those; each ends with a comma.
    """
    return b'{"_stream":"%s","_seq":%d,%s%s' % (
        record.stream.encode(),
        record.seq,
        more,
        record.line[1:],
    )


def runs(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yields ascending numbers as ranges of consecutive ones: first and last."""
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
    """Yields a body in pieces that end at line ends."""
    start = 0
    while start < len(body):
        stop = body.find(b"\n", start + _PIECE_BYTES) + 1 or len(body)
        yield body[start:stop]
        start = stop
