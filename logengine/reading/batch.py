"""Batches of records: one by one, or as bytes, which is much faster. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import msgspec

from logengine.format.block import Block, Record, Rows, with_place
from logengine.format.cursor import Cursor
from logengine.reading.filter import Filter
from logengine.reading.problem import Gone, Problem, Report

_GAPS_KEY = b"_gaps"
# Holes of one stream that wait for a record after them. Beyond that, the oldest is dropped: it
# was reported anyway.
_PENDING_GAPS_MAX = 1000
# As many as are rendered at a time, so that what is decoded stays in the CPU caches.
_ROWS_MAX = 128

Chunk = Block | Sequence[Record]


class Batch:
    """Some records, in the order in which they are to be shown.

    `gaps` maps the stream and number of a record to the records that are gone right before it.
    """

    def __init__(self, chunk: Chunk, gaps: Mapping[tuple[str, int], Sequence[Gone]]) -> None:
        self._chunk = chunk
        self.gaps = gaps

    def __iter__(self) -> Iterator[Record]:
        chunk = self._chunk
        return chunk.records() if isinstance(chunk, Block) else iter(chunk)

    def last_seqs(self) -> dict[str, int]:
        """The number of the last record of each stream in the batch."""
        chunk = self._chunk
        if isinstance(chunk, Block):
            return {chunk.stream: chunk.first + chunk.count - 1}
        return {record.stream: record.seq for record in chunk}

    def until(self, chosen: Filter) -> "Batch | None":
        """The records up to the first that is chosen, that one included; None if none is."""
        chunk = self._chunk
        if isinstance(chunk, Block):
            first = next(chosen.choose(chunk), None)
            return None if first is None else Batch(chunk.end_before(first.first + 1), self.gaps)
        for count, record in enumerate(chunk, 1):
            if next(chosen.ranges(record.line + b"\n"), None) is not None:
                return Batch(chunk[:count], self.gaps)
        return None

    def between_gaps(self) -> Iterator[tuple[str, Sequence[Gone], "Batch"]]:
        """The batch in parts: a stream, which of its records are gone there, and what follows."""
        chunk = self._chunk
        if isinstance(chunk, Block) or not self.gaps:
            gaps = next(iter(self.gaps.values()), ())
            yield chunk.stream if isinstance(chunk, Block) else "", gaps, Batch(chunk, {})
            return
        start, stream = 0, ""
        gone: Sequence[Gone] = ()
        for place, record in enumerate(chunk):
            if (found := self.gaps.get((record.stream, record.seq))) is None:
                continue
            if start < place:
                yield stream, gone, Batch(chunk[start:place], {})
            start, stream, gone = place, record.stream, found
        yield stream, gone, Batch(chunk[start:], {})

    def __len__(self) -> int:
        return self._chunk.count if isinstance(self._chunk, Block) else len(self._chunk)

    def part(self, start: int, stop: int) -> "Batch":
        """The records from index `start` up to `stop`, exclusive."""
        chunk = self._chunk
        if not isinstance(chunk, Block):
            return Batch(chunk[start:stop], self.gaps)
        stop = min(stop, chunk.count)
        places = self._line_places
        body = chunk.body[places[start] : places[stop]]
        part = Block(chunk.stream, chunk.first + start, stop - start, body)
        return Batch(part, {} if start else self.gaps)

    @cached_property
    def _line_places(self) -> Sequence[int]:
        """Where each line of the block begins, and the last one ends: a batch has many parts."""
        assert isinstance(self._chunk, Block)
        lengths = [len(line) + 1 for line in self._chunk.lines()]
        return list(accumulate(lengths, initial=0))

    def place_of(self, cursor: Cursor) -> int | None:
        """The index of the record with this stream and number; None if it is not here."""
        chunk = self._chunk
        if isinstance(chunk, Block):
            index = cursor.seq - chunk.first
            return index if chunk.stream == cursor.stream and 0 <= index < chunk.count else None
        places = enumerate(chunk)
        return next((index for index, each in places if each.cursor == cursor), None)

    def chosen(self, chosen: Filter) -> Iterator[tuple[int, int]]:
        """The ranges of indexes, each with its exclusive stop, of the records that are chosen."""
        block = self._chunk
        if not isinstance(block, Block):
            # A filter looks at lines only.
            body = _joined([record.line for record in block])
            block = Block("", 0, len(block), body)
        for part in chosen.choose(block):
            yield part.first - block.first, part.first - block.first + part.count

    def raw(self) -> Iterator[bytes]:
        """The stored lines, each with its newline, in pieces of any number of lines."""
        chunk = self._chunk
        if isinstance(chunk, Block):
            yield chunk.body
        else:
            yield _joined([record.line for record in chunk])

    def json(self) -> Iterator[bytes]:
        """The records as NDJSON, in pieces of any number of lines.

        Each starts with `_stream` and `_seq`, then `_gaps` if records are gone right before it:
        the form of `logengine cat --format json`, see `docs/reading.md`.
        """
        chunk = self._chunk
        if not isinstance(chunk, Block):
            yield _joined([self._json(record) for record in chunk])
            return
        if self.gaps:
            (first,) = chunk.end_before(chunk.first + 1).records()
            yield _joined([self._json(first)])
            chunk = chunk.begin_at(chunk.first + 1)
        yield from chunk.with_places()

    def blocks(self) -> Iterator[Block]:
        """The records as blocks, each of records of one stream with consecutive numbers."""
        chunk = self._chunk
        if isinstance(chunk, Block):
            yield chunk
            return
        for record in chunk:
            yield Block(record.stream, record.seq, 1, record.line + b"\n")

    def rows(self) -> Iterator[Rows]:
        """The records as rows, some at a time, for what renders them."""
        chunk = self._chunk
        if isinstance(chunk, Block):
            yield from chunk.rows()
            return
        for start in range(0, len(chunk), _ROWS_MAX):
            records = chunk[start : start + _ROWS_MAX]
            lines = [record.line for record in records]
            yield Rows(
                [record.stream for record in records],
                [record.seq for record in records],
                lines,
                _joined([*lines]),
            )

    def _json(self, record: Record) -> bytes:
        gaps = self.gaps and self.gaps.get((record.stream, record.seq))
        if not gaps:
            return with_place(record)
        return with_place(record, b'"%s":%s,' % (_GAPS_KEY, msgspec.json.encode(gaps)))


def _joined(lines: list[bytes]) -> bytes:
    lines.append(b"")
    return b"\n".join(lines)


class PendingGaps:
    """Keeps the records that were reported as gone until there is a record after them."""

    def __init__(self) -> None:
        self._gone: dict[str, list[Gone]] = {}

    def noting(self, report: Report) -> Report:
        """Returns a function that adds each problem here and passes it to `report`."""

        def note_and_report(problem: Problem) -> None:
            self.add(problem)
            report(problem)

        return note_and_report

    def add(self, problem: Problem) -> None:
        """Adds the records that a problem says are gone, if their numbers are known."""
        if problem.gone is None:
            return
        gone = self._gone.setdefault(problem.stream, [])
        gone.append(problem.gone)
        del gone[:-_PENDING_GAPS_MAX]

    def batch(self, chunk: Chunk) -> Batch:
        """The batch of one or more records, with what is gone before them."""
        if not self._gone:
            return Batch(chunk, {})
        places = (
            [(chunk.stream, chunk.first)]
            if isinstance(chunk, Block)
            else [(record.stream, record.seq) for record in chunk]
        )
        return Batch(chunk, {place: gone for place in places if (gone := self._take(*place))})

    def _take(self, stream: str, seq: int) -> list[Gone]:
        # Streams merged by time are read ahead: some of the gone records may be after `seq`.
        gone = self._gone.pop(stream, [])
        if later := [each for each in gone if each.last >= seq]:
            self._gone[stream] = later
        return [each for each in gone if each.last < seq]
