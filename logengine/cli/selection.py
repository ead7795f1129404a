"""The options that select the records a command reads: streams, cursors, times, content."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from logengine.boot_time import booted_at
from logengine.cli.filtering import filter_options
from logengine.cli.options import resolve_data, streams_argument
from logengine.errors import InvalidCursor
from logengine.format.cursor import Cursor
from logengine.format.timestamp import parse_time
from logengine.local_zone import local_now
from logengine.reading import ChosenStreams, Filter, RangeBy, Reading, Report, read

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


_RANGE_BY_NAMES = ("--by", "--range-by")
# For commands in which `--by` is something else.
ONLY_RANGE_BY = _RANGE_BY_NAMES[1:]

_AFTER = click.option(
    "--after",
    "cursors",
    type=CursorOption(),
    multiple=True,
    metavar="CURSOR",
    help="Only records after this cursor, STREAM:SEQ. Repeat it for several streams.",
)


def range_options(
    command: Callable[..., Any], *, range_by_names: Sequence[str] = _RANGE_BY_NAMES
) -> Callable[..., Any]:
    """Adds `--after` and `time_options`: the command also gets `cursors`."""
    return _AFTER(time_options(command, range_by_names=range_by_names))


def erased_range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the same for a command that destroys: `23:00` must not mean another day than meant.

    A time is that of arrival, which no sender chooses, unless the other is asked for.
    """
    return _AFTER(_with_times(command, needs_day=True, default_by="arrival"))


def time_options(
    command: Callable[..., Any], *, range_by_names: Sequence[str] = _RANGE_BY_NAMES
) -> Callable[..., Any]:
    """Adds `--since`, `--until` and `--by`.

    The command gets `since` and `until`, as timestamps, and `range_by`.
    """
    return _with_times(command, range_by_names=range_by_names)


def _with_times(
    command: Callable[..., Any],
    *,
    needs_day: bool = False,
    default_by: RangeBy = "time",
    range_by_names: Sequence[str] = _RANGE_BY_NAMES,
) -> Callable[..., Any]:
    with_by = click.option(
        *range_by_names,
        "range_by",
        type=click.Choice(get_args(RangeBy)),
        default=default_by,
        show_default=True,
        help="Which time --since and --until mean. time: the record's own, in its field time, or "
        "that of its arrival if it has none that is known. arrival: always that of its arrival.",
    )(command)
    with_until = click.option(
        "--until",
        type=Time(is_end=True, needs_day=needs_day),
        help="Only records before this time, in the same forms.",
    )(with_by)
    return click.option(
        "--since",
        type=Time(needs_day=needs_day),
        help="Only records from this time on: '14:00', 'yesterday 14:00', '2026-11-20', "
        "'1h30m' (ago), 'boot', '@1763900000', RFC 3339. Local time, unless it has an offset."
        + (" A time of the day that is still to come needs a day." if needs_day else ""),
    )(with_until)


def selection_options(
    command: Callable[..., Any], *, range_by_names: Sequence[str] = _RANGE_BY_NAMES
) -> Callable[..., Any]:
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
        range_by: RangeBy,
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
                by=range_by,
                where=chosen,
                on_problem=report,
            )

        return command(*arguments, select=select, **others)

    with_range = range_options(filter_options(with_selection), range_by_names=range_by_names)
    return streams_argument(with_range)
