"""`logengine tail`"""

import asyncio
import os
import stat
import sys
from collections.abc import Collection
from pathlib import Path

import click

from logengine.cli.filtering import filter_options
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.output import Output, format_option
from logengine.cli.streams import check_names, streams_to_read
from logengine.directory import sync_directory
from logengine.filter import Filter
from logengine.reader import StreamReader, last_records, merge_by_time
from logengine.segment_file import list_streams


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
    if follow:
        # What is followed need not be there yet.
        check_names(streams)
        there = list_streams(data) if data.is_dir() else []
        names = [stream for stream in there if not streams or stream in streams]
        if awaited := ", ".join(dict.fromkeys(name for name in streams if name not in there)):
            known = f"there are: {', '.join(there)}" if there else "there are none yet"
            click.echo(f"logengine: waiting for stream {awaited} in {data}; {known}", err=True)
    else:
        names = streams_to_read(data, streams)
    readers = {stream: StreamReader(data, stream, output.report) for stream in names}
    last = [last_records(reader, count, chosen) for reader in readers.values()]
    if follow:
        # What was just read may be visible and not yet durable.
        for stream in names:
            sync_directory(data / stream)
    merged = list(merge_by_time(last))
    output.write(merged[len(merged) - count :] if len(merged) > count else merged)
    output.flush()
    if follow:
        asyncio.run(_follow_while_read(data, streams or None, readers, chosen, output))
    ctx.exit(1 if output.problems else 0)


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
    from logengine.follow import Follower

    async for block in Follower(data, streams, readers, output.report).blocks():
        for part in chosen.choose(block):
            output.write_block(part)
        output.flush()
