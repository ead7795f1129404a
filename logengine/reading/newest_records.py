"""The newest records of a stream, read from its end."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing

from logengine.format.block import Block, Record
from logengine.format.time_range import ALL_TIMES, TimeRange
from logengine.reading.filter import Filter
from logengine.reading.reader import ALL_RECORDS, StreamReader, in_range


def last_records(
    reader: StreamReader,
    count: int,
    chosen: Filter = ALL_RECORDS,
    stop: int | None = None,
    times: TimeRange = ALL_TIMES,
) -> list[Record]:
    """The last `count` chosen records of a stream in `times`, or all if there are fewer.

    With `stop`, only those before it. `reader` is then after the last of them, at the end, at
    `stop` or at the end of `times`. Keeps at most `count` records in memory. A filter that chooses
    few records may cause a read of the whole range.
    """
    if not count or (chosen.chooses_all and times.holds_every_time):
        reader.seek_last(count, stop)
        return _last_of(reader.read(stop=stop), count, chosen)
    begin, stop = _bounds(reader, times, stop)
    last: list[Record] = []
    with closing(reader.read_back(stop)) as spans:
        for blocks in spans:
            is_first = reader.next_seq <= begin
            last = _last_of(blocks, count - len(last), chosen, times) + last
            if len(last) == count or is_first:
                break
    return last


def records_back(reader: StreamReader, chosen: Filter, times: TimeRange) -> Iterator[Record]:
    """The chosen records of a stream in `times`, from `next_seq` on, the newest first.

    Keeps the chosen records of one segment in memory.
    """
    begin, stop = _bounds(reader, times, None)
    with closing(reader.read_back(stop, 1)) as spans:
        for blocks in spans:
            is_first = reader.next_seq <= begin
            parts = [
                part
                for block in blocks
                if block.first + block.count > begin
                for part in _chosen_in(block.begin_at(begin), chosen, times)
            ]
            for part in reversed(parts):
                yield from reversed(list(part.records()))
            if is_first:
                return


def _bounds(reader: StreamReader, times: TimeRange, stop: int | None) -> tuple[int, int | None]:
    """Moves a reader to the start of `times`. Returns that, and `stop` or the end of `times`."""
    reader.seek_start_of(times)
    if (end := reader.end_of(times)) is not None:
        stop = end if stop is None else min(stop, end)
    return reader.next_seq, stop


def _chosen_in(block: Block, chosen: Filter, times: TimeRange) -> Iterator[Block]:
    for part in [block] if times.holds_every_time else in_range(block, times):
        yield from chosen.choose(part)


def _last_of(
    blocks: Iterable[Block], count: int, chosen: Filter, times: TimeRange = ALL_TIMES
) -> list[Record]:
    last: deque[Record] = deque(maxlen=count)
    for block in blocks:
        for part in _chosen_in(block, chosen, times):
            last.extend(part.records())
    return list(last)
