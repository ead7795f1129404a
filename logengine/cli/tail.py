"""`logengine tail`"""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from logengine.cli.filtering import filter_options
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.output import Output, format_option
from logengine.cli.streams import check_names, streams_to_read, there_are
from logengine.disk.segment_file import list_streams
from logengine.format.block import Record
from logengine.reading.filter import Filter
from logengine.reading.reader import StreamReader, last_records, merge_by_time

# One whose directory is just being made, perhaps more than once, is not said to be awaited.
_LOOKS_FOR_AWAITED = 10
_LOOK_AGAIN_S = 0.1


@click.command(
    epilog="""\b
Examples:
  logengine tail
  logengine tail app -n 100
  logengine tail -f app audit
  logengine tail -f --format json | jq .event
  logengine tail -f --where level=error --where _comm=web
"""
)
@streams_argument
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many records.",
)
@click.option("-f", "--follow", is_flag=True, help="Then print what comes, once it is on disk.")
@filter_options
@format_option
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    count: int,
    follow: bool,  # noqa: FBT001 - click passes by name
    chosen: Filter,
    form: str,
    data: Path | None,
) -> None:
    """Print the last records, of several streams merged by time; with -f, go on.

    Without STREAM, all streams. Works without the daemon.
    """
    data = resolve_data(data).absolute()
    output = Output(form)
    if not follow:
        readers = [StreamReader(data, s, output.report) for s in streams_to_read(data, streams)]
        _write_last(output, [_last_records(reader, count, chosen) for reader in readers], count)
        ctx.exit(1 if output.problems else 0)
    # What is followed need not be there yet.
    check_names(streams)
    there = list_streams(data) if data.is_dir() else []
    followed: dict[str, StreamReader] = {}
    last = []
    for stream in (stream for stream in there if not streams or stream in streams):
        found = _last_durable_records(data, stream, count, chosen, output)
        if found is not None:
            followed[stream], records = found
            last.append(records)
    _write_last(output, last, count)
    asyncio.run(_follow_while_read(data, streams or None, followed, chosen, output))
    ctx.exit(1 if output.problems else 0)


def _last_records(reader: StreamReader, count: int, chosen: Filter) -> list[Record]:
    try:
        return last_records(reader, count, chosen)
    except FileNotFoundError:
        return []  # an empty directory: it is made anew for the first record, or was taken away


def _last_durable_records(
    data: Path, stream: str, count: int, chosen: Filter, output: Output
) -> tuple[StreamReader, list[Record]] | None:
    """As `last_durable_records`; None of a stream that went: all of it is new if it comes."""
    from logengine.reading.follower import last_durable_records

    try:
        return last_durable_records(data, stream, count, chosen, output.report)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


def _write_last(output: Output, streams: Sequence[Sequence[Record]], count: int) -> None:
    merged = list(merge_by_time(streams))
    output.write(merged[len(merged) - count :] if len(merged) > count else merged)
    output.flush()


async def _follow_while_read(
    data: Path,
    streams: Collection[str] | None,
    readers: dict[str, StreamReader],
    chosen: Filter,
    output: Output,
) -> None:
    """Follows until whoever reads our output has enough, which else only the next write shows."""
    loop = asyncio.get_running_loop()
    following = loop.create_task(_follow(data, streams, readers, chosen, output))
    telling = loop.create_task(_tell_awaited(data, set(streams or ()) - readers.keys()))
    descriptor = sys.stdout.fileno()
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    if is_pipe:
        # A pipe's writing end is never readable; it becomes so when its other end is closed.
        loop.add_reader(descriptor, following.cancel)
    try:
        await following
    except asyncio.CancelledError:
        if is_pipe and following.cancelled() and not _is_cancelled():
            raise BrokenPipeError from None
        raise
    finally:
        if is_pipe:
            loop.remove_reader(descriptor)
        following.cancel()
        telling.cancel()


async def _tell_awaited(data: Path, awaited: set[str]) -> None:
    """Says which of some streams there are not, if they do not come in a moment."""
    there: list[str] = []
    for _ in range(_LOOKS_FOR_AWAITED):
        if not awaited:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
        there = list_streams(data) if data.is_dir() else []
        awaited = awaited.difference(there)
    if awaited:
        names = ", ".join(sorted(awaited))
        click.echo(f"logengine: waiting for stream {names} in {data}; {there_are(there)}", err=True)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _follow(
    data: Path,
    streams: Collection[str] | None,
    readers: dict[str, StreamReader],
    chosen: Filter,
    output: Output,
) -> None:
    from logengine.reading.follower import Follower

    async for block in Follower(data, streams, readers, output.report).blocks():
        for part in chosen.choose(block):
            output.write_block(part)
        output.flush()
