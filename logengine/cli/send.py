"""`logengine send`"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import click

from logengine.cli.options import resolve_socket, socket_option
from logengine.errors import InvalidStreamName
from logengine.segment import STREAM_NAME_RULE, is_stream_name
from logengine.sender import LineSender, Unacked
from logengine.units import parse_duration

_READ_BYTES = 256 * 1024


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return float(value) if value.replace(".", "", 1).isdigit() else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    epilog="""\b
Examples:
  echo '{"level":"info","event":"deployed"}' | logengine send
  logengine send -s web access.log
  journalctl -o json | logengine send -s journal --resume journal-import
"""
)
@click.option("-s", "--stream", default="default", show_default=True, help="The stream to send to.")
@click.option(
    "--resume",
    metavar="NAME",
    help="Go on where an earlier run with this name stopped, given the same input.",
)
@click.option(
    "--timeout",
    type=_Duration(),
    metavar="DURATION",
    help="Give up when the daemon is away for longer than this. Default: wait for ever.",
)
@socket_option
@click.argument(
    "files", nargs=-1, metavar="[FILE]...", type=click.Path(exists=True, dir_okay=False)
)
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    resume: str | None,
    timeout: float | None,
    socket: Path | None,
    files: tuple[str, ...],
) -> None:
    """Send lines or NDJSON from FILEs, or standard input; each line becomes one record.

    Returns when all is on disk, with status 0 only if every line is. Waits and reconnects
    while the daemon is away; each line is stored once. `-` is standard input.
    """
    if not is_stream_name(stream):
        raise InvalidStreamName(f"{stream!r} cannot be a stream; expected {STREAM_NAME_RULE}")
    producer = resume or f"send-{os.uname().nodename[:64]}-{os.getpid()}-{secrets.token_hex(4)}"
    with _progress(files) as progress:
        sender = LineSender(
            resolve_socket(socket),
            stream,
            producer,
            timeout_s=timeout,
            on_acked=lambda _: progress(sender.unacked),
            on_refused=_report_refused,
        )
        asyncio.run(sender.send(_read(files)))
    if resume and sender.resumed_at:
        skipped = min(sender.resumed_at, sender.unacked.taken)
        click.echo(f"logengine: skipped {skipped} lines that were stored before", err=True)
    ctx.exit(1 if sender.refused else 0)


def _report_refused(first: int, last: int, reason: str) -> None:
    lines = f"line {first} is" if first == last else f"lines {first} to {last} are"
    why = "over a quota of the daemon's"
    if reason == "record_too_large":
        why = "longer than the daemon's max_record"
    click.echo(f"logengine: {lines} {why}; not stored", err=True)


async def _read(files: Sequence[str]) -> AsyncIterator[bytes]:
    for name in files or ("-",):
        with _opened(name) as descriptor:
            end = b""
            while chunk := await _read_some(descriptor):
                yield chunk
                end = chunk[-1:]
            if end not in (b"", b"\n"):
                yield b"\n"  # the next file's first line is a line of its own


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    if name == "-":
        yield sys.stdin.fileno()
        return
    with open(name, "rb", buffering=0) as file:
        yield file.fileno()


async def _read_some(descriptor: int) -> bytes:
    """The next bytes; waits without a thread, for a pipe may have nothing to say for hours."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:  # a regular file: epoll takes none, and none ever blocks for long
        return os.read(descriptor, _READ_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _READ_BYTES)


@contextlib.contextmanager
def _progress(files: Sequence[str]) -> Iterator[Callable[[Unacked], None]]:
    """Shows on a terminal how much of the input is durable, where its size is known."""
    sizes = [Path(name).stat().st_size for name in files if Path(name).is_file()]
    known = bool(files) and len(sizes) == len(files) and sys.stderr.isatty()
    with click.progressbar(
        length=sum(sizes), label="send", file=sys.stderr, hidden=not known
    ) as bar:
        yield lambda unacked: bar.update(unacked.bytes_taken - unacked.bytes - bar.pos)
