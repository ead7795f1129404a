"""`logengine top`"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from logengine.cli.options import (
    data_option,
    resolve_data,
    resolve_socket,
    socket_option,
    streams_argument,
)
from logengine.cli.status import ask_status
from logengine.client.daemon_socket import Socket
from logengine.errors import DaemonUnavailable, LogEngineError
from logengine.protocols.status import Status
from logengine.reading import Filter, check_data_directory, check_stream_names
from logengine.top.figures import DaemonFigures

# A daemon that hangs must not keep the figures of the disk from being shown.
_PATIENCE_S = 2.0


@click.command(
    epilog="""\b
Examples:
  logengine top
  logengine top 'web-*'
  logengine top app --where 'level >= warning'
"""
)
@streams_argument
@click.option(
    "--where",
    "wheres",
    multiple=True,
    metavar="EXPRESSION",
    help="In the lists of records, only those for which this holds, such as 'level >= warning'. "
    "Repeated, all must hold. See docs/filter.md.",
)
@socket_option
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    wheres: Sequence[str],
    socket: Path | None,
    data: Path | None,
) -> None:
    """Show streams and senders on a live screen: rates, delays, errors, disk; and their records.

    STREAM may be a pattern such as 'web-*'. Without STREAM, shows all streams. Works without the
    daemon, and without permission to ask it. `?` lists the keys.
    """
    _check_terminal()
    check_stream_names(streams)
    Filter.of(wheres)
    try:
        from logengine.top.app import ProblemQueue, TopApp
        from logengine.top.source import RecordSource
        from logengine.top.survey import Survey
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("textual", "rich"):
            raise
        raise LogEngineError(
            "top needs textual, which is not installed: pip install 'logengine[top]'"
        ) from None
    data = resolve_data(data).absolute()
    check_data_directory(data)
    path = resolve_socket(socket)
    problems = ProblemQueue()
    source = RecordSource(data, streams, wheres, problems.add)
    survey = Survey(data, streams, lambda: ask_daemon(path), problems.add)
    app = TopApp(survey, source, problems)
    app.run()
    ctx.exit(app.return_code or 0)


def _check_terminal() -> None:
    """Raises `click.UsageError` where there is no screen to draw on."""
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            "top needs a terminal; for a file or a pipe, use `logengine ls`, `status` or `tail -f`"
        )
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        raise click.UsageError(
            "top needs a terminal that can move its cursor, and TERM says that this one cannot; "
            "use `logengine ls`, `status` or `tail -f`"
        )


def ask_daemon(path: Socket) -> DaemonFigures:
    """Asks the daemon how it is."""
    try:
        answer = ask_status(path, _PATIENCE_S)
    except DaemonUnavailable:
        return DaemonFigures("absent", why="no daemon answers")
    try:
        return DaemonFigures("answers", msgspec.json.decode(answer, type=Status))
    except msgspec.MsgspecError:
        is_denied = b"not_allowed" in answer
        why = "daemon: only root and its user may ask" if is_denied else "daemon: no status"
        return DaemonFigures("denied", why=why)
