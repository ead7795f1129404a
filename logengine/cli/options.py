"""The options that several commands share."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from logengine.client.daemon_socket import Socket, find_default
from logengine.default_paths import find_data
from logengine.errors import UnknownStream
from logengine.units import parse_duration

Command = Callable[..., Any]
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def resolve_data(data: Path | None) -> Path:
    """Returns `data`, or the data directory of the user's own daemon, else the system's."""
    return data if data is not None else find_data(os.environ, os.getuid())


def resolve_socket(socket: Path | None) -> Socket:
    """Returns `socket`, or the socket of the user's own daemon, else the system's."""
    return socket if socket is not None else find_default()


class Duration(click.ParamType[float]):
    """A number of seconds, or a duration such as `200ms`."""

    name = "duration"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType.convert`."""
        try:
            return parse_duration(f"{value}s" if _NUMBER.fullmatch(value) else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def complete_streams(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the name of a stream in the data directory."""
    from logengine.reading import stream_names

    try:
        streams = stream_names(data=resolve_data(ctx.params.get("data")))
    except (OSError, UnknownStream):
        return []
    return [CompletionItem(name) for name in streams if name.startswith(incomplete)]


def given_streams(ctx: click.Context) -> tuple[str, ...]:
    """Returns the streams that the command line names so far."""
    stream = ctx.params.get("stream")
    # After an option without its value yet, click takes no arguments and leaves them here.
    return ctx.params.get("streams") or (tuple(ctx.args) if stream is None else (stream,))


def complete_fields(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes the name of a field, the last one in `a,b.c`, from the newest records."""
    from logengine.cli.field_completion import field_names

    before, comma, name = incomplete.rpartition(",")
    names = field_names(ctx.params.get("data"), given_streams(ctx))
    return [CompletionItem(f"{before}{comma}{each}") for each in names if each.startswith(name)]


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LOGENGINE_DATA",
    show_envvar=True,
    is_eager=True,
    help="The data directory. Default: that of your own daemon, else the system's.",
)

socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="LOGENGINE_SOCKET",
    show_envvar=True,
    help="The daemon's socket. Default: that of your own daemon, else the system's.",
)

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file. Default: none; built-in defaults apply.",
)

streams_argument = click.argument(
    "streams", nargs=-1, metavar="[STREAM]...", shell_complete=complete_streams
)
