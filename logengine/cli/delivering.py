"""What `logengine send` and `logengine import` share: lines of an input, until all are on disk."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import click

from logengine.cli.options import Duration
from logengine.client.aio import AsyncClient
from logengine.client.settings import process_producer
from logengine.errors import LogEngineError, NotDurable
from logengine.record import split_lines

_WINDOW_BYTES = 8 * 1024 * 1024  # of the input, not yet known to be durable
_RECORDS_MAX = _WINDOW_BYTES  # the bytes alone bound it
_READ_BYTES = 256 * 1024


resume_option = click.option(
    "--resume",
    metavar="NAME",
    help="Go on where an earlier run with this name stopped, given the same input.",
)

timeout_option = click.option(
    "--timeout",
    type=Duration(),
    metavar="DURATION",
    help="Give up when the daemon is away for longer than this. Default: wait for ever.",
)


def deliver(
    chunks: AsyncIterator[bytes],
    stream: str,
    socket: Path,
    *,
    resume: str | None,
    timeout_s: float | None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Sends lines, cut anywhere, until all are on disk; the exit status of that.

    With `resume`, what a producer of this name stored before is skipped, by number. `progress`
    is told how many bytes of the input are durable, at times. Raises `InvalidStreamName`,
    `DaemonUnavailable` and `ProtocolError`.
    """
    return 1 if asyncio.run(_deliver(chunks, stream, socket, resume, timeout_s, progress)) else 0


async def _deliver(
    chunks: AsyncIterator[bytes],
    stream: str,
    socket: Path,
    resume: str | None,
    timeout_s: float | None,
    progress: Callable[[int], None],
) -> int:
    """Sends all lines until they are durable; gives how many the daemon refused."""
    client = AsyncClient(
        stream,
        socket=socket,
        producer=resume or process_producer("send"),
        max_records=_RECORDS_MAX,
        max_bytes=_WINDOW_BYTES,
        away_max=timeout_s,
    )
    try:
        sending = asyncio.create_task(_send_all(client, chunks, progress))
        failing = asyncio.create_task(client.failed())
        try:
            done, _ = await asyncio.wait({sending, failing}, return_when=asyncio.FIRST_COMPLETED)
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


async def read_input(name: str) -> AsyncIterator[bytes]:
    """What is in a file, or comes from standard input (`-`), in pieces. Raises `OSError`."""
    with _opened(name) as descriptor:
        while chunk := await _read_some(descriptor):
            yield chunk


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
