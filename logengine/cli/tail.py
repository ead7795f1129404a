"""`logengine tail`"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from logengine.cli.arrangement import (
    Arrangement,
    arrangement_options,
    print_records,
)
from logengine.cli.cursor_file import CursorFile, cursor_file_option
from logengine.cli.filtering import filter_options
from logengine.cli.following_end import Ending, tell_ending, until_gone, when_output_closes
from logengine.cli.messages import tell
from logengine.cli.options import Duration, data_option, resolve_data, streams_argument
from logengine.cli.output import Output, output_options
from logengine.cli.selection import time_options
from logengine.cli.standard_descriptors import drop_output
from logengine.errors import AtomicWriteError, UnknownStream
from logengine.format.cursor import Cursor
from logengine.reading import (
    Batch,
    ChosenStreams,
    Filter,
    Following,
    RangeBy,
    Reading,
    newest_seq,
    read,
    stream_names,
    unmatched,
)
from logengine.reading import follow as follow_records

# A stream whose directory is only just being created is not reported as awaited: it is looked for
# several times first.
_LOOKS_FOR_AWAITED = 10
_LOOK_AGAIN_S = 0.1
_SAVE_EVERY_S = 1.0
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
  logengine tail app -n 0 --until-match event=started --timeout 30s
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
@click.option(
    "--until-match",
    "expression",
    metavar="EXPRESSION",
    help="Follow until a record matches this, an expression as for --where, and end after it. "
    "Records of -n count too. Exit 0: it came; 3: not within --timeout; 4: the stream was removed.",
)
@click.option(
    "--timeout", type=Duration(), metavar="DURATION", help="End after this time of following."
)
@cursor_file_option
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
    expression: str | None,
    timeout: float | None,
    cursor_path: Path | None,
    since: str | None,
    until: str | None,
    range_by: RangeBy,
    chosen: Filter,
    arrangement: Arrangement,
    output: Output,
    data: Path | None,
) -> None:
    """Print the last records; with -f, also new ones. Several streams are merged by time.

    STREAM may be a pattern such as 'web-*'. Without STREAM, prints all streams. Works without the
    daemon. With a --cursor-file that exists, prints everything that is new instead of the last
    records.
    """
    if follow and until is not None:
        raise click.UsageError("--until ends what -f continues; omit one of them")
    if (follow or expression is not None) and arrangement.reverse:
        raise click.UsageError("-r needs an end, and -f and --until-match have none; omit one")
    if count is None and since is None and until is None:
        count = _COUNT
    data = resolve_data(data).absolute()
    expected = None if expression is None else Filter.of([expression])
    follows = follow or expected is not None
    if timeout is not None and not follows:
        raise click.UsageError("--timeout needs -f or --until-match: it ends the following")
    cursors = CursorFile.open(cursor_path)
    last = _Last(streams, data, since, until, range_by, count, chosen)
    if not follows:
        with output:
            _print_last(last, arrangement, output, cursors)
        ctx.exit(1 if output.problems else 0)
    output.pager_command = None
    arrangement.check(chooses_all=chosen.chooses_all)
    following = follow_records(
        *streams,
        data=data,
        since=since,
        by=range_by,
        last=count,
        where=chosen,
        timeout_s=timeout,
        on_problem=output.report,
    )
    if cursors is not None:
        following.continue_after(cursors.after(_streams_there(data), data))
    try:
        ending = asyncio.run(_follow_while_read(following, output, arrangement, expected, cursors))
    except BrokenPipeError:
        ending = Ending.OUTPUT_CLOSED
    if ending is Ending.OUTPUT_CLOSED:
        drop_output()
    if expected is None:
        ctx.exit(1 if output.problems and ending is Ending.TIMED_OUT else 0)
    tell_ending(ending, timeout)
    ctx.exit(ending.value)


@dataclass(frozen=True)
class _Last:
    """The existing records that are asked for."""

    streams: Sequence[str]
    data: Path
    since: str | None
    until: str | None
    range_by: RangeBy
    count: int | None
    chosen: Filter

    def read(self, output: Output) -> Reading:
        return read(
            *self.streams,
            data=self.data,
            since=self.since,
            until=self.until,
            by=self.range_by,
            last=self.count,
            where=self.chosen,
            on_problem=output.report,
        )


def _print_last(
    last: _Last, arrangement: Arrangement, output: Output, cursors: CursorFile | None
) -> None:
    """Prints the last records, or what is new since an earlier run with these `cursors`."""
    if cursors is None:
        print_records(last.read(output), output, arrangement)
        return
    names = stream_names(*last.streams, data=last.data)
    if after := cursors.after(names, last.data):
        new = read(
            *names,
            data=last.data,
            after=[Cursor(*each) for each in after.items()],
            since=last.since,
            until=last.until,
            by=last.range_by,
            where=last.chosen,
            on_problem=output.report,
        )
        print_records(new, output, arrangement, cursors=cursors)
        return
    # Before the last records are read, so that none is both left out now and skipped later.
    ends = {name: newest_seq(name, data=last.data, on_problem=lambda _: None) for name in names}
    with cursors.unsaved():
        print_records(last.read(output), output, arrangement, cursors=cursors)
    cursors.start(ends)
    cursors.save()


async def _follow_while_read(
    following: Following,
    output: Output,
    arrangement: Arrangement,
    expected: Filter | None,
    cursors: CursorFile | None,
) -> Ending:
    """Follows until the reader closes our output, which otherwise only the next write would show.

    Or until an `expected` record was printed, the time is over or, if one is expected, all streams
    are gone. Raises `BrokenPipeError`, and `AtomicWriteError` for the file of `cursors`.
    """
    loop = asyncio.get_running_loop()
    ending = Ending.TIMED_OUT

    def end(reason: Ending) -> None:
        nonlocal ending
        ending = reason
        following.stop()

    awaited = unmatched(following.streams or (), _streams_there(following.data))
    tasks = [loop.create_task(_say_what_is_awaited(following.data, awaited))]
    if expected is not None:
        tasks.append(loop.create_task(_end_when_gone(following, end)))
    if cursors is not None:
        tasks.append(loop.create_task(_save_regularly(cursors, following)))
    batches = _batches(following, arrangement)
    try:
        with when_output_closes(lambda: end(Ending.OUTPUT_CLOSED)):
            async for batch in batches:
                if batch is None:
                    output.separate()
                    continue
                last = None if expected is None else batch.until(expected)
                output.write(last or batch)
                output.flush()
                if cursors is not None:
                    cursors.note(last or batch)
                if last is not None:
                    return Ending.FOUND
    finally:
        await batches.aclose()
        for task in tasks:
            task.cancel()
        if cursors is not None:
            cursors.start(following.began_after)
            cursors.save()
    return ending


def _batches(
    following: Following, arrangement: Arrangement
) -> AsyncGenerator[Batch, None] | AsyncGenerator[Batch | None, None]:
    """Returns what to print; None stands between groups that are not adjacent."""
    if arrangement.is_plain:
        return following.async_batches()
    return following.async_groups(arrangement.before, arrangement.after)


async def _end_when_gone(following: Following, end: Callable[[Ending], None]) -> None:
    with contextlib.suppress(OSError):  # the follower reports it
        await until_gone(lambda: _followed_streams(following))
        end(Ending.STREAM_GONE)


async def _save_regularly(cursors: CursorFile, following: Following) -> None:
    while True:
        await asyncio.sleep(_SAVE_EVERY_S)
        cursors.start(following.began_after)
        with contextlib.suppress(AtomicWriteError):  # saving at the end reports it
            cursors.save()


def _followed_streams(following: Following) -> set[str]:
    there = set(_streams_there(following.data))
    if following.streams is None:
        return there
    chosen = ChosenStreams(following.streams)
    return {stream for stream in there if stream in chosen}


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
