"""The records that a command was asked for: of which streams, from where to where, and which."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from logengine.cli.filtering import filter_options
from logengine.cli.options import resolve_data, streams_argument
from logengine.cli.streams import streams_to_read
from logengine.format.block import Block, Record
from logengine.format.cursor import Cursor
from logengine.format.time_range import TimeRange
from logengine.format.timestamp import parse_time
from logengine.reading.filter import Filter
from logengine.reading.problem import Report
from logengine.reading.reader import StreamReader, merge_by_time

Select = Callable[[Report], "Selection"]


class Time(click.ParamType[str]):
    """A time as people write it, as the timestamp that it means."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType.convert`."""
        try:
            return parse_time(value, datetime.now().astimezone())
        except ValueError as error:
            self.fail(str(error), param, ctx)


_OPTIONS = (
    click.option(
        "--after",
        "cursors",
        multiple=True,
        metavar="CURSOR",
        help="Only records behind this one, STREAM:SEQ. May be given for several streams.",
    ),
    click.option(
        "--since",
        type=Time(),
        help="Only records from this time on: RFC 3339, '10m' or '3d' ago, 'today', 'yesterday'.",
    ),
    click.option("--until", type=Time(), help="Only records before this time."),
)


def range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--after`, `--since` and `--until`: `cursors`, `since` and `until` of the command."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All that says which records: the command gets as `select` what makes a `Selection`.

    Streams, those of `range_options` and of `filter_options`; takes `data` of the command's own
    `data_option`, which stands last in its help.
    """

    @functools.wraps(command)
    def with_selection(
        *arguments: Any,
        data: Path | None,
        streams: tuple[str, ...],
        cursors: tuple[str, ...],
        since: str | None,
        until: str | None,
        chosen: Filter,
        **others: Any,
    ) -> Any:
        select = functools.partial(Selection, data, streams, cursors, since, until, chosen)
        return command(*arguments, select=select, **others)

    return streams_argument(range_options(filter_options(with_selection)))


class Selection:
    """Records of one stream as blocks, or of several, merged by time.

    Without `streams`, of all, or of those that the cursors name. Raises `InvalidStreamName`,
    `UnknownStream` and `InvalidCursor`.
    """

    def __init__(
        self,
        data: Path | None,
        streams: Sequence[str],
        cursors: Sequence[str],
        since: str | None,
        until: str | None,
        chosen: Filter,
        report: Report,
    ) -> None:
        after = {cursor.stream: cursor.seq for cursor in map(Cursor.parse, cursors)}
        data = resolve_data(data)
        names = streams_to_read(data, streams or tuple(after))
        if stray := after.keys() - set(names):
            raise click.UsageError(f"--after names {', '.join(stray)}, which is not to be read")
        self._times = TimeRange(since, until)
        self._chosen = chosen
        self._readers = []
        for stream in names:
            reader = StreamReader(
                data,
                stream,
                report,
                after.get(stream, 0) + 1,
                tells_removed=stream in after,
            )
            if since is not None:
                with contextlib.suppress(FileNotFoundError):  # `_blocks` has it again
                    reader.seek_time(since)
            self._readers.append(reader)

    @property
    def is_one_stream(self) -> bool:
        """Whether all come from one stream, so that they need not be merged."""
        return len(self._readers) == 1

    def blocks(self) -> Iterator[Block]:
        """The records, stream by stream."""
        for reader in self._readers:
            yield from self._blocks(reader)

    def merged(self) -> Iterator[Record]:
        """The records, merged by time."""
        return merge_by_time([self._records(reader) for reader in self._readers])

    def _blocks(self, reader: StreamReader) -> Iterator[Block]:
        begin = reader.next_seq
        try:
            for block in reader.read(self._times):
                yield from self._chosen.choose(block)
        except FileNotFoundError:
            if reader.next_seq != begin:
                raise
            # An empty directory: it is made anew for the first record, or was taken away.

    def _records(self, reader: StreamReader) -> Iterator[Record]:
        for block in self._blocks(reader):
            yield from block.records()
