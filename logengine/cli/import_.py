"""`logengine import`"""

from pathlib import Path

import click

from logengine.cli.delivering import (
    check_anew,
    deliver,
    deliver_resumed,
    resume_anew_option,
    resume_option,
    timeout_option,
)
from logengine.cli.options import complete_streams, resolve_socket, socket_option
from logengine.exchange.importing import FORMATS, line_converter
from logengine.exchange.input import read_converted, written_at


@click.command(
    epilog="""\b
Examples:
  logengine import /var/log/nginx/access.log.1 -s nginx
  journalctl -o export | logengine import - -s journal --resume journal
  logengine import old.ndjson -s app --format ndjson
"""
)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(allow_dash=True)
)
@click.option(
    "-s", "--stream", required=True, shell_complete=complete_streams, help="Send to this stream."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="journal: the output of `journalctl -o export`. auto: journal if the input starts like "
    "one; otherwise each line is NDJSON, syslog, an access log's, logfmt or text. text: each line "
    "is a message, and nothing else is recognized but its time.",
)
@resume_option
@resume_anew_option
@timeout_option
@socket_option
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[str, ...],
    stream: str,
    form: str,
    resume: str | None,
    resume_anew: bool,  # noqa: FBT001
    timeout: float | None,
    socket: Path | None,
) -> None:
    """Import other programs' logs from FILEs. Each line or journal entry becomes one record.

    The time in a line, object or entry becomes the record's `time`. Returns when all records are on
    disk; the exit status is 0 only if every record was stored. `-` is standard input. Input
    compressed with gzip, bzip2, xz or zstd is decompressed.
    """
    check_anew(resume, anew=resume_anew)
    for name in files:
        if name != "-":
            open(name, "rb").close()  # fail before anything is stored, not halfway
    if resume is None:
        status = deliver(
            read_converted(files, form), stream, resolve_socket(socket), timeout_s=timeout
        )
    else:
        status = deliver_resumed(
            files,
            stream,
            resolve_socket(socket),
            resume,
            form=form,
            convert=lambda name, lines: line_converter(form, written_at(name)).receive(lines),
            anew=resume_anew,
            timeout_s=timeout,
        )
    ctx.exit(status)
