"""`logengine tail`"""

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from logengine.cli.cursor_file import CursorFile, cursor_file_option, write_all
from logengine.cli.filtering import filter_options
from logengine.cli.following_end import Ending, tell_ending, until_gone
from logengine.cli.messages import tell
from logengine.cli.options import Duration, data_option, resolve_data, streams_argument
from logengine.cli.output import Output, format_option
from logengine.cli.standard_descriptors import drop_output
from logengine.errors import AtomicWriteError, UnknownStream
from logengine.format.cursor import Cursor
from logengine.reading import Filter, Following, newest_seq, read, stream_names
from logengine.reading import follow as follow_records

# A stream whose directory is only just being created is not reported as awaited: it is looked for
# several times first.
_LOOKS_FOR_AWAITED = 10
_LOOK_AGAIN_S = 0.1
_SAVE_EVERY_S = 1.0


@click.command(
    epilog="""\b
Examples:
  logengine tail
  logengine tail app -n 100
  logengine tail -f app audit
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
    default=10,
    show_default=True,
    help="Print this many of the last records.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Then print new records as soon as they are on disk."
)
@click.option(
    "--until-match",
    "until",
    metavar="EXPRESSION",
    help="Follow until a record matches this, an expression as for --where, and end after it. "
    "Records of -n count too. Exit 0: it came; 3: not within --timeout; 4: the stream was removed.",
)
@click.option(
    "--timeout", type=Duration(), metavar="DURATION", help="End after this time of following."
)
@cursor_file_option
@filter_options
@format_option
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    count: int,
    follow: bool,  # noqa: FBT001 - click passes by name
    until: str | None,
    timeout: float | None,
    cursor_path: Path | None,
    chosen: Filter,
    form: str,
    data: Path | None,
) -> None:
    """Print the last records; with -f, also new ones. Several streams are merged by time.

    Without STREAM, prints all streams. Works without the daemon. With a --cursor-file that exists,
    prints everything that is new instead of the last records.
    """
    data = resolve_data(data).absolute()
    output = Output(form)
    expected = None if until is None else Filter.of([until])
    if timeout is not None and not follow and expected is None:
        raise click.UsageError("--timeout needs -f or --until-match: it ends the following")
    cursors = CursorFile.open(cursor_path)
    if not follow and expected is None:
        _print_last(streams, data, count, chosen, output, cursors)
        ctx.exit(1 if output.problems else 0)
    following = follow_records(
        *streams, data=data, last=count, where=chosen, timeout_s=timeout, on_problem=output.report
    )
    if cursors is not None:
        following.continue_after(cursors.after(_streams_there(data), data))
    try:
        ending = asyncio.run(_follow_while_read(following, output, expected, cursors))
    except BrokenPipeError:
        ending = Ending.OUTPUT_CLOSED
    if ending is Ending.OUTPUT_CLOSED:
        drop_output()
    if expected is None:
        ctx.exit(1 if output.problems and ending is Ending.TIMED_OUT else 0)
    tell_ending(ending, timeout)
    ctx.exit(ending.value)


def _print_last(
    streams: Sequence[str],
    data: Path,
    count: int,
    chosen: Filter,
    output: Output,
    cursors: CursorFile | None,
) -> None:
    """Prints the last records, or what is new since an earlier run with these `cursors`."""
    if cursors is None:
        last = read(*streams, data=data, last=count, where=chosen, on_problem=output.report)
        write_all(last.batches(), output)
        return
    names = stream_names(*streams, data=data)
    if after := cursors.after(names, data):
        new = read(
            *names,
            data=data,
            after=[Cursor(*each) for each in after.items()],
            where=chosen,
            on_problem=output.report,
        )
        write_all(new.batches(), output, cursors)
        return
    # Before the last records are read, so that none is both left out now and skipped later.
    ends = {name: newest_seq(name, data=data, on_problem=lambda _: None) for name in names}
    last = read(*names, data=data, last=count, where=chosen, on_problem=output.report)
    batches = list(last.batches())
    write_all(batches, output)
    cursors.start(ends)
    for batch in batches:
        cursors.note(batch)
    cursors.save()


async def _follow_while_read(
    following: Following, output: Output, expected: Filter | None, cursors: CursorFile | None
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

    awaited = set(following.streams or ()).difference(_streams_there(following.data))
    tasks = [loop.create_task(_say_what_is_awaited(following.data, awaited))]
    if expected is not None:
        tasks.append(loop.create_task(_end_when_gone(following, end)))
    if cursors is not None:
        tasks.append(loop.create_task(_save_regularly(cursors, following)))
    batches = following.async_batches()
    try:
        with _when_output_closes(lambda: end(Ending.OUTPUT_CLOSED)):
            async for batch in batches:
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


@contextlib.contextmanager
def _when_output_closes(call: Callable[[], None]) -> Iterator[None]:
    """Calls `call` when the reader of our output closes it, if the output is a pipe."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdout.fileno()
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    if is_pipe:
        # The writing end of a pipe becomes readable only when its reading end is closed.
        loop.add_reader(descriptor, call)
    try:
        yield
    finally:
        if is_pipe:
            loop.remove_reader(descriptor)


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
    return there if following.streams is None else there.intersection(following.streams)


async def _say_what_is_awaited(data: Path, awaited: set[str]) -> None:
    """Reports which of the `awaited` streams still do not exist after a moment."""
    there: list[str] = []
    for _ in range(_LOOKS_FOR_AWAITED):
        if not awaited:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
        there = _streams_there(data)
        awaited = awaited.difference(there)
    if awaited:
        names = ", ".join(sorted(awaited))
        known = f"there are: {', '.join(there)}" if there else "there are none yet"
        tell(f"waiting for stream {names} in {data}; {known}")


def _streams_there(data: Path) -> list[str]:
    try:
        return stream_names(data=data)
    except UnknownStream:
        return []  # no data directory yet
