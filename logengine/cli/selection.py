"""The options that select the records a command reads: streams, cursors, times, content."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from logengine.boot_time import booted_at
from logengine.cli.filtering import filter_options
from logengine.cli.options import resolve_data, streams_argument
from logengine.errors import InvalidCursor
from logengine.format.cursor import Cursor
from logengine.format.timestamp import parse_time
from logengine.local_zone import local_now
from logengine.reading import ChosenStreams, Filter, Reading, Report, read

Select = Callable[[Report], Reading]


class Time(click.ParamType[str]):
    """A time as people write it, converted to a timestamp. See `parse_time`."""

    name = "time"

    def __init__(self, *, is_end: bool = False, needs_day: bool = False) -> None:
        self._is_end = is_end
        self._needs_day = needs_day

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType.convert`."""
        try:
            return parse_time(
                value,
                local_now(),
                is_end=self._is_end,
                needs_day=self._needs_day,
                booted=booted_at,
            )
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CursorOption(click.ParamType[Cursor]):
    """A cursor, STREAM:SEQ."""

    name = "cursor"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> Cursor:
        """See `click.ParamType.convert`."""
        try:
            return Cursor.parse(value)
        except InvalidCursor as error:
            self.fail(str(error), param, ctx)


_AFTER = click.option(
    "--after",
    "cursors",
    type=CursorOption(),
    multiple=True,
    metavar="CURSOR",
    help="Only records after this cursor, STREAM:SEQ. Repeat it for several streams.",
)


def range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--after`, `--since` and `--until`: the command gets `cursors`, `since` and `until`."""
    return _AFTER(time_options(command))


def erased_range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the same for a command that destroys: `23:00` must not mean another day than meant."""
    return _AFTER(_with_times(command, needs_day=True))


def time_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--since` and `--until`: the command gets `since` and `until`, as timestamps."""
    return _with_times(command, needs_day=False)


def _with_times(command: Callable[..., Any], *, needs_day: bool) -> Callable[..., Any]:
    with_until = click.option(
        "--until",
        type=Time(is_end=True, needs_day=needs_day),
        help="Only records before this time, in the same forms.",
    )(command)
    return click.option(
        "--since",
        type=Time(needs_day=needs_day),
        help="Only records from this time on: '14:00', 'yesterday 14:00', '2026-11-20', "
        "'1h30m' (ago), 'boot', '@1763900000', RFC 3339. Local time, unless it has an offset."
        + (" A time of the day that is still to come needs a day." if needs_day else ""),
    )(with_until)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the streams argument, `range_options` and `filter_options`.

    The command gets `select` instead of these, a function that returns their `Reading`. The
    command itself adds `data_option`, so that it comes last in the help; its value is used here.
    """

    @functools.wraps(command)
    def with_selection(
        *arguments: Any,
        data: Path | None,
        streams: tuple[str, ...],
        cursors: tuple[Cursor, ...],
        since: str | None,
        until: str | None,
        chosen: Filter,
        **others: Any,
    ) -> Any:
        of = ChosenStreams(streams)
        stray = {cursor.stream for cursor in cursors if streams and cursor.stream not in of}
        if stray:
            names = ", ".join(sorted(stray))
            raise click.UsageError(
                f"--after names {names}, which is not among the streams given; add it, or give none"
            )

        def select(report: Report) -> Reading:
            return read(
                *streams,
                data=resolve_data(data),
                after=cursors,
                since=since,
                until=until,
                where=chosen,
                on_problem=report,
            )

        return command(*arguments, select=select, **others)

    return streams_argument(range_options(filter_options(with_selection)))
