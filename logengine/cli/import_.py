"""`logengine import`"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

import click

from logengine.cli.delivering import (
    check_anew,
    deliver,
    deliver_resumed,
    read_input,
    resume_anew_option,
    resume_option,
    timeout_option,
)
from logengine.cli.options import resolve_socket, socket_option
from logengine.errors import MalformedInput
from logengine.exchange.importing import FORMATS, Converter, converter, line_converter


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
@click.option("-s", "--stream", required=True, help="The stream to send to.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="journal: what `journalctl -o export` prints. auto: journal if it begins so, else "
    "each line NDJSON or text.",
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
    """Import logs of other programs from FILEs; each line or entry becomes one record.

    The time that a line, an object or an entry tells is kept as the record's `time`. Returns
    when all is on disk, with status 0 only if every record is. `-` is standard input.
    """
    check_anew(resume, anew=resume_anew)
    for name in files:
        if name != "-":
            open(name, "rb").close()  # better said before half of it is stored
    if resume is None:
        status = deliver(_converted(files, form), stream, resolve_socket(socket), timeout_s=timeout)
    else:
        status = deliver_resumed(
            files,
            stream,
            resolve_socket(socket),
            resume,
            form=form,
            convert=lambda name, lines: line_converter(form, _written_at(name)).receive(lines),
            anew=resume_anew,
            timeout_s=timeout,
        )
    ctx.exit(status)


async def _converted(files: Sequence[str], form: str) -> AsyncIterator[bytes]:
    for name in files:
        conversion: Converter | None = None
        try:
            async for chunk in read_input(name):
                conversion = conversion or converter(form, chunk, _written_at(name))
                yield conversion.receive(chunk)
            if conversion is not None:
                yield conversion.end()
        except MalformedInput as error:
            raise MalformedInput(f"{name}: {error}") from None


def _written_at(name: str) -> datetime:
    """When the last line was written, about: what a line without a year is held against."""
    now = datetime.now().astimezone()
    if name == "-" or not Path(name).is_file():
        return now
    return datetime.fromtimestamp(Path(name).stat().st_mtime).astimezone()
