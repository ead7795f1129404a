"""`logengine web`"""

from pathlib import Path

import click

from logengine.cli.messages import say
from logengine.cli.options import data_option, resolve_data
from logengine.reading import check_data_directory
from logengine.web.server import Options, serve

_PORT = 8514


@click.command(
    epilog="""\b
Examples:
  logengine web
  logengine web --port 0 --data ./data
  logengine web --unix ~/.logengine-web
  ssh -L 8514:/home/ann/.logengine-web HOST   # then, on another machine
"""
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="The port, on 127.0.0.1 only; 0 for any free one.",
)
@click.option(
    "--unix",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Listen on a Unix socket at this path instead, which only you may use.",
)
@click.option(
    "--no-token", is_flag=True, help="Let everyone in who may use the socket. Only with --unix."
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another name by which browsers reach the page, as that of a proxy; without a port. "
    "Repeatable.",
)
@data_option
def command(
    port: int,
    unix: Path | None,
    no_token: bool,  # noqa: FBT001
    hosts: tuple[str, ...],
    data: Path | None,
) -> None:
    """Serve a page with the records, to read, filter and follow them in a browser.

    Prints the URL to open, with a token in it that is valid until this ends, by Ctrl-C. Nothing can
    be changed by the page. It shows what you may read. Needs `logengine[web]`.
    """
    if no_token and unix is None:
        raise click.UsageError(
            "--no-token needs --unix PATH: any user of this machine may connect to a port"
        )
    data = resolve_data(data)
    check_data_directory(data)
    options = Options(data=data, port=port, unix=unix, has_token=not no_token, hosts=hosts)
    serve(options, say)
