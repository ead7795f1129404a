"""`logengine cat`"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

import click

from logengine.block import Block, Record
from logengine.cli.filtering import filter_options
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.output import Output, format_option
from logengine.cli.streams import streams_to_read
from logengine.filter import Filter
from logengine.reader import Cursor, StreamReader, TimeRange, merge_by_time
from logengine.timestamp import parse_time

_RECORDS_PER_WRITE = 1024


class _Time(click.ParamType[str]):
    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_time(value, datetime.now().astimezone())
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    epilog="""\b
Examples:
  logengine cat app
  logengine cat --since 10m
  logengine cat app --since 2026-11-23T20:00:00Z --until 2026-11-23T20:01:00Z
  logengine cat app --after app:5120 --format raw
  logengine cat --since today --grep 'time.?out' -i --where level=error
"""
)
@streams_argument
@click.option(
    "--after",
    "cursors",
    multiple=True,
    metavar="CURSOR",
    help="Only records behind this one, STREAM:SEQ. May be given for several streams.",
)
@click.option(
    "--since",
    type=_Time(),
    help="Only records from this time on: RFC 3339, '10m' or '3d' ago, 'today', 'yesterday'.",
)
@click.option("--until", type=_Time(), help="Only records before this time.")
@filter_options
@format_option
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    cursors: tuple[str, ...],
    since: str | None,
    until: str | None,
    chosen: Filter,
    form: str,
    data: Path | None,
) -> None:
    """Print records from a point on; of several streams, merged by time.

    Without STREAM, all streams, or those that --after names.
    """
    after = {cursor.stream: cursor.seq for cursor in map(Cursor.parse, cursors)}
    data = resolve_data(data)
    output = Output(form)
    times = TimeRange(since, until)
    names = streams_to_read(data, streams or tuple(after))
    if stray := after.keys() - set(names):
        raise click.UsageError(f"--after names {', '.join(stray)}, which is not to be read")
    readers = []
    for stream in names:
        reader = StreamReader(data, stream, output.report, after.get(stream, 0) + 1)
        if since is not None:
            reader.seek_time(since)
        readers.append(reader)
    if len(readers) == 1:
        for block in _blocks(readers[0], times, chosen):
            output.write_block(block)
    else:
        merged = merge_by_time([_records(reader, times, chosen) for reader in readers])
        while batch := list(islice(merged, _RECORDS_PER_WRITE)):
            output.write(batch)
    output.flush()
    ctx.exit(1 if output.problems else 0)


def _blocks(reader: StreamReader, times: TimeRange, chosen: Filter) -> Iterator[Block]:
    for block in reader.read(times):
        yield from chosen.choose(block)


def _records(reader: StreamReader, times: TimeRange, chosen: Filter) -> Iterator[Record]:
    for block in _blocks(reader, times, chosen):
        yield from block.records()
