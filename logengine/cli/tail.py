"""`logengine tail`"""

import asyncio
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from logengine.cli.arrangement import (
    Arrangement,
    arrangement_options,
    print_records,
)
from logengine.cli.filtering import filter_options
from logengine.cli.messages import tell
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.output import Output, output_options
from logengine.cli.selection import time_options
from logengine.errors import UnknownStream
from logengine.reading import Filter, Following, read, stream_names, unmatched
from logengine.reading import follow as follow_records

# A stream whose directory is only just being created is not reported as awaited: it is looked for
# several times first.
_LOOKS_FOR_AWAITED = 10
_LOOK_AGAIN_S = 0.1
_COUNT = 10


@click.command(
    epilog="""\b
Examples:
  logengine tail
  logengine tail app -n 100
  logengine tail -f app 'web-*'
  logengine tail -f --since 10m
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
    metavar="N",
    show_default="10; with --since or --until, all of that time",
    help="Print the last N records.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Then print new records as soon as they are on disk."
)
@time_options
@filter_options
@arrangement_options
@output_options(paged=True)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    count: int | None,
    follow: bool,  # noqa: FBT001 - click passes by name
    since: str | None,
    until: str | None,
    chosen: Filter,
    arrangement: Arrangement,
    output: Output,
    data: Path | None,
) -> None:
    """Print the last records; with -f, also new ones. Several streams are merged by time.

    STREAM may be a pattern such as 'web-*'. Without STREAM, prints all streams. Works without the
    daemon.
    """
    if follow and until is not None:
        raise click.UsageError("--until ends what -f continues; omit one of them")
    if follow and not arrangement.is_plain:
        raise click.UsageError("-A, -B, -C and -r need an end, and -f has none; omit one")
    if count is None and since is None and until is None:
        count = _COUNT
    data = resolve_data(data).absolute()
    if not follow:
        last = read(
            *streams,
            data=data,
            since=since,
            until=until,
            last=count,
            where=chosen,
            on_problem=output.report,
        )
        with output:
            print_records(last, output, arrangement)
    else:
        following = follow_records(
            *streams, data=data, since=since, last=count, where=chosen, on_problem=output.report
        )
        asyncio.run(_follow_while_read(following, output))
    ctx.exit(1 if output.problems else 0)


async def _follow_while_read(following: Following, output: Output) -> None:
    """Follows until the reader closes our output; otherwise only the next write would show that."""
    loop = asyncio.get_running_loop()
    awaited = unmatched(following.streams or (), _streams_there(following.data))
    saying = loop.create_task(_say_what_is_awaited(following.data, awaited))
    descriptor = sys.stdout.fileno()
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    if is_pipe:
        # The writing end of a pipe becomes readable only when its reading end is closed.
        loop.add_reader(descriptor, following.stop)
    try:
        async for batch in following.async_batches():
            output.write(batch)
            output.flush()
    finally:
        if is_pipe:
            loop.remove_reader(descriptor)
        saying.cancel()
    raise BrokenPipeError  # nothing but the closed pipe stops following


async def _say_what_is_awaited(data: Path, awaited: Sequence[str]) -> None:
    """Reports which of the `awaited` streams still do not exist after a moment."""
    there: list[str] = []
    for _ in range(_LOOKS_FOR_AWAITED):
        if not awaited:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
        there = _streams_there(data)
        awaited = unmatched(awaited, there)
    if awaited:
        names = ", ".join(sorted(awaited))
        known = f"there are: {', '.join(there)}" if there else "there are none yet"
        tell(f"waiting for stream {names} in {data}; {known}")


def _streams_there(data: Path) -> list[str]:
    try:
        return stream_names(data=data)
    except UnknownStream:
        return []  # no data directory yet
