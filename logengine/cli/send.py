"""`logengine send`"""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from logengine.cli.delivering import (
    check_anew,
    deliver,
    deliver_resumed,
    resume_anew_option,
    resume_option,
    timeout_option,
)
from logengine.cli.message_arguments import is_message, message_record
from logengine.cli.options import complete_streams, resolve_socket, socket_option
from logengine.exchange.input import read_inputs
from logengine.format.decompression import COMPRESSION_BYTES, compression_of

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.command(
    epilog="""\b
Examples:
  echo '{"level":"info","event":"deployed"}' | logengine send
  logengine send -s web access.log
  journalctl -o json | logengine send -s journal --resume journal
  logengine send 'disk is nearly full' level=warning percent=91
"""
)
@click.option(
    "-s",
    "--stream",
    default="default",
    show_default=True,
    shell_complete=complete_streams,
    help="Send to this stream.",
)
@resume_option
@resume_anew_option
@timeout_option
@socket_option
@click.option(
    "-m",
    "--message",
    "text",
    metavar="TEXT",
    help="Send one record with this message instead, and the fields KEY=VALUE that follow.",
)
@click.argument(
    "arguments",
    nargs=-1,
    metavar="[FILE]... | [TEXT] [KEY=VALUE]...",
    shell_complete=lambda ctx, param, incomplete: [CompletionItem(incomplete, type="file")],  # noqa: ARG005
)
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    resume: str | None,
    resume_anew: bool,  # noqa: FBT001
    timeout: float | None,
    socket: Path | None,
    text: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Send lines or NDJSON from FILEs or standard input, or one message.

    Each line of a FILE becomes one record.

    Returns when all lines are on disk; the exit status is 0 only if every line was stored. While
    the daemon is away, waits and reconnects; each line is still stored exactly once. `-` is
    standard input. Input compressed with gzip, bzip2, xz or zstd is decompressed.

    If no argument is a file that exists, and the first contains white space or is followed only by
    KEY=VALUE, it is the message of one record with these fields. VALUE is a string unless it is
    written like a JSON number, true or false.
    """
    check_anew(resume, anew=resume_anew)
    if text is None and is_message(arguments):
        text, arguments = arguments[0], arguments[1:]
    if text is not None:
        if resume is not None:
            raise click.UsageError("--resume continues an input; a message is sent only once")
        line = message_record(text, arguments)
        ctx.exit(deliver(_once(line), stream, resolve_socket(socket), timeout_s=timeout))
    files = tuple(_file(ctx, name) for name in arguments)
    with _progress(files) as progress:
        if resume is None:
            status = deliver(
                read_inputs(files or ("-",)),
                stream,
                resolve_socket(socket),
                timeout_s=timeout,
                progress=progress,
            )
        else:
            status = deliver_resumed(
                files or ("-",),
                stream,
                resolve_socket(socket),
                resume,
                form="lines",
                convert=lambda _, lines: lines,
                anew=resume_anew,
                timeout_s=timeout,
                progress=progress,
            )
    ctx.exit(status)


async def _once(line: bytes) -> AsyncIterator[bytes]:
    yield line


def _file(ctx: click.Context, name: str) -> str:
    try:
        return str(_FILE.convert(name, None, ctx))
    except click.BadParameter as error:
        raise click.UsageError(
            f"{error.message} To send it as a message, use -m/--message TEXT."
        ) from None


@contextlib.contextmanager
def _progress(files: Sequence[str]) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how much of the input is durable, if the input's size is known."""
    paths = [Path(name) for name in files if Path(name).is_file()]
    sizes = [path.stat().st_size for path in paths]
    known = bool(files) and len(paths) == len(files) and sys.stderr.isatty()
    known = known and not any(map(_is_compressed, paths))
    with click.progressbar(
        length=sum(sizes), label="send", file=sys.stderr, hidden=not known
    ) as bar:
        yield lambda durable_bytes: bar.update(durable_bytes - bar.pos)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return compression_of(file.read(COMPRESSION_BYTES)) is not None
