"""`logengine exec`"""

import asyncio
from pathlib import Path

import click

from logengine.cli.messages import tell
from logengine.cli.options import Duration, complete_streams, socket_option

_STATUS_OWN_FAILURE = 125  # the same as env and timeout
_STATUS_SIGNAL = 128


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  logengine exec -s web -- /usr/bin/web --port 80
  logengine exec -s backup --spool /var/spool/logengine -- rsync -a /home /backup
  logengine exec -s report -- sh -c 'produce | sort'
""",
)
@click.option(
    "-s",
    "--stream",
    default="default",
    show_default=True,
    shell_complete=complete_streams,
    help="Send to this stream.",
)
@socket_option
@click.option(
    "--producer",
    metavar="NAME",
    help="A name for this sender that outlives the process. A new sender disconnects an older one "
    "with the same name.",
)
@click.option(
    "--spool",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep records in this directory while the daemon is away. This command, or the next one "
    "with the same DIR, sends them later.",
)
@click.option(
    "--on-full",
    type=click.Choice(["block", "drop"]),
    default="block",
    show_default=True,
    help="When no more records can be kept: block the command's writes, or drop records and count "
    "them.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="After the command has exited, wait at most this long until all is on the daemon's disk.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    socket: Path | None,
    producer: str | None,
    spool: Path | None,
    on_full: str,
    timeout: float,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND and send each line of its standard output and error as a record.

    A line becomes `{"fd":1,"message":"..."}`; a JSON object is kept and gets `fd` added. One more
    record reports how the command exited. Signals are passed on to it. The exit status is that of
    the command; 127 if it is not found, 126 if it cannot be run, 125 if it was not started because
    of the other options. Output of processes that the command leaves running is read for one more
    second.
    """
    from logengine.client.aio import AsyncClient
    from logengine.command.child_process import End, die_by
    from logengine.command.execution import execute
    from logengine.errors import CommandNotStarted, LogEngineError

    async def run() -> End:
        client = AsyncClient(
            stream,
            socket=socket,
            producer=producer,
            spool=spool,
            on_full="drop" if on_full == "drop" else "block",
        )
        return await execute(command, client, timeout_s=timeout, tell=tell)

    try:
        end = asyncio.run(run())
    except CommandNotStarted as error:
        tell(str(error))
        ctx.exit(error.status)
    except (LogEngineError, OSError, ValueError) as error:
        tell(str(error))
        ctx.exit(_STATUS_OWN_FAILURE)
    if end.signal is None:
        ctx.exit(end.status or 0)
    die_by(end.signal)
    ctx.exit(_STATUS_SIGNAL + end.signal)
