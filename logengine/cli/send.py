"""`logengine send`"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import click

from logengine.cli.options import resolve_socket, socket_option
from logengine.client.aio import AsyncClient
from logengine.client.settings import process_producer
from logengine.errors import LogEngineError, NotDurable
from logengine.record import split_lines
from logengine.units import parse_duration

WINDOW_BYTES = 8 * 1024 * 1024  # of the input, not yet known to be durable
_RECORDS_MAX = WINDOW_BYTES  # the bytes alone bound it
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
    refused = asyncio.run(_send(files, stream, resume, timeout, resolve_socket(socket)))
    ctx.exit(1 if refused else 0)


async def _send(
    files: Sequence[str], stream: str, resume: str | None, timeout: float | None, socket: Path
) -> int:
    """Sends all lines until they are durable; gives how many the daemon refused."""
    client = AsyncClient(
        stream,
        socket=socket,
        producer=resume or process_producer("send"),
        max_records=_RECORDS_MAX,
        max_bytes=WINDOW_BYTES,
        away_max=timeout,
    )
    try:
        with _progress(files) as progress:
            sending = asyncio.create_task(_send_all(client, _read(files), progress))
            failing = asyncio.create_task(client.failed())
            try:
                done, _ = await asyncio.wait(
                    {sending, failing}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    await task
                skipped = sending.result()
            finally:
                for task in (sending, failing):
                    task.cancel()
                await asyncio.gather(sending, failing, return_exceptions=True)
    finally:
        with contextlib.suppress(LogEngineError):
            await client.close(timeout=0)
    for first, last, reason in client.refusals:
        _report_refusal(skipped + first, skipped + last, reason)
    told = sum(last + 1 - first for first, last, _ in client.refusals)
    if client.refused > told:
        click.echo(f"logengine: {client.refused - told} more lines were not stored", err=True)
    return client.refused


def _report_refusal(first: int, last: int, reason: str) -> None:
    lines = f"line {first} is" if first == last else f"lines {first} to {last} are"
    why = {
        "record_too_large": "longer than the daemon's max_record",
        "over_quota": "over a quota of the daemon's",
    }.get(reason, f"refused by the daemon: {reason}")
    click.echo(f"logengine: {lines} {why}; not stored", err=True)


async def _send_all(
    client: AsyncClient, chunks: AsyncIterator[bytes], progress: Callable[[int], None]
) -> int:
    """Sends what is not stored already; gives how many lines were skipped because they are."""
    skipped = await client.resumed_at()
    sent_bytes = 0
    left = skipped
    async for lines in complete_lines(chunks, client.max_record):
        sent_bytes += len(lines)
        left, rest = skip_lines(lines, left)
        if rest:
            await client.send_lines(rest)
        progress(sent_bytes - client.pending_bytes)
    with contextlib.suppress(NotDurable):  # what is refused is told by who counts it
        await client.flush()
    progress(sent_bytes)
    if skipped:
        click.echo(f"logengine: skipped {skipped - left} lines that were stored before", err=True)
    return skipped


def skip_lines(lines: bytes, count: int) -> tuple[int, bytes]:
    """What is left of `count`, and of complete `lines`, without the first that are not blank."""
    if not count:
        return 0, lines
    there = list(split_lines(lines))
    rest = there[count:]
    return max(0, count - len(there)), b"".join(line + b"\n" for line in rest)


async def complete_lines(chunks: AsyncIterator[bytes], max_record: int) -> AsyncIterator[bytes]:
    """`chunks` cut anew, at line ends; a last line gets its newline if it has none.

    Of a line longer than `max_record` only so much is passed on that it is refused.
    """
    rest = bytearray()
    async for chunk in chunks:
        stop = chunk.rfind(b"\n") + 1
        if stop:
            yield bytes(rest) + chunk[:stop]
            rest.clear()
        room = max_record + 2 - len(rest)
        rest += chunk[stop : stop + max(0, room)]
    if rest:
        yield bytes(rest) + b"\n"


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
def _progress(files: Sequence[str]) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how much of the input is durable, where its size is known."""
    sizes = [Path(name).stat().st_size for name in files if Path(name).is_file()]
    known = bool(files) and len(sizes) == len(files) and sys.stderr.isatty()
    with click.progressbar(
        length=sum(sizes), label="send", file=sys.stderr, hidden=not known
    ) as bar:
        yield lambda durable_bytes: bar.update(durable_bytes - bar.pos)
