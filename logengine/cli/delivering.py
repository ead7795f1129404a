"""What `logengine send` and `logengine import` share: lines of an input, until all are on disk."""

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import click
import msgspec

from logengine.cli.options import Duration
from logengine.cli.resuming import Convert, ResumedSending
from logengine.cli.status import ask_status
from logengine.client.aio import AsyncClient
from logengine.client.settings import process_producer
from logengine.errors import AtomicWriteError, LogEngineError, NotDurable
from logengine.places import resume_directory
from logengine.protocols.status import Status
from logengine.reading import newest_seq
from logengine.resume.state_file import StateFile

_WINDOW_BYTES = 8 * 1024 * 1024  # of the input, not yet known to be durable
_RECORDS_MAX = _WINDOW_BYTES  # the bytes alone bound it
_READ_BYTES = 1024 * 1024


resume_option = click.option(
    "--resume",
    metavar="NAME",
    help="Go on where an earlier run with this name stopped, also where a file was rotated or a "
    "journal vacuumed since.",
)

resume_anew_option = click.option(
    "--resume-anew",
    is_flag=True,
    help="With --resume: store an input from its start, instead of refusing it, if it is not what "
    "an earlier run read under its name.",
)


def check_anew(resume: str | None, *, anew: bool) -> None:
    """Raises `click.UsageError` for an option that would do nothing."""
    if anew and resume is None:
        raise click.UsageError("--resume-anew goes with --resume NAME")


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
    timeout_s: float | None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Sends lines, cut anywhere, until all are on disk; the exit status of that.

    `progress` is told how many bytes of the input are durable, at times. Raises
    `InvalidStreamName`, `DaemonUnavailable` and `ProtocolError`.
    """

    async def send(client: AsyncClient) -> int:
        await _send_all(client, chunks, progress)
        return 0

    async def run() -> int:
        return await _deliver(_client(stream, socket, process_producer("send"), timeout_s), send)

    return 1 if asyncio.run(run()) else 0


def deliver_resumed(
    names: Sequence[str],
    stream: str,
    socket: Path,
    resume: str,
    *,
    form: str,
    convert: Convert,
    anew: bool,
    timeout_s: float | None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """As `deliver`, of what earlier runs with the name `resume` have not stored of the inputs.

    Raises also `AnotherInput`, `ResumeInUse`, `DamagedResumeState`, `MalformedInput`, `OSError`.
    """
    directory = resume_directory(os.environ, os.getuid())

    async def send(client: AsyncClient, state: StateFile) -> int:
        sending = ResumedSending(
            client,
            state,
            form=form,
            convert=convert,
            anew=anew,
            read_pipe=read_input,
            records_of_stream=lambda: _records_of_stream(socket, stream),
            progress=progress,
        )
        await sending.run(names)
        if sending.skipped:
            click.echo(
                f"logengine: skipped {sending.skipped} lines that were stored before", err=True
            )
        return sending.skipped

    async def run() -> int:
        client = _client(stream, socket, resume, timeout_s)  # checks the names
        # Before it connects: that would end another run with this name.
        try:
            with StateFile(directory, stream, resume, socket) as state:
                return await _deliver(client, lambda client: send(client, state))
        except AtomicWriteError as error:
            raise LogEngineError(
                f"{error}; --resume keeps there how far it is: $LOGENGINE_STATE names another place"
            ) from None

    return 1 if asyncio.run(run()) else 0


def _client(stream: str, socket: Path, producer: str, timeout_s: float | None) -> AsyncClient:
    return AsyncClient(
        stream,
        socket=socket,
        producer=producer,
        max_records=_RECORDS_MAX,
        max_bytes=_WINDOW_BYTES,
        away_max=timeout_s,
    )


async def _deliver(client: AsyncClient, send: Callable[[AsyncClient], Awaitable[int]]) -> int:
    """Sends all lines until they are durable; gives how many the daemon refused.

    `send` gives how many lines there were before the first that was sent.
    """
    try:
        sending = asyncio.ensure_future(send(client))
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
) -> None:
    await client.resumed_at()
    sent_bytes = 0
    async for lines in complete_lines(chunks, client.max_record):
        sent_bytes += len(lines)
        await client.send_lines(lines)
        progress(sent_bytes - client.pending_bytes)
    with contextlib.suppress(NotDurable):  # what is refused is told by who counts it
        await client.flush()
    progress(sent_bytes)


def _records_of_stream(socket: Path, stream: str) -> int | None:
    """How many records the stream ever had; None if this user may not know."""
    try:
        status = msgspec.json.decode(ask_status(socket), type=Status)
        return newest_seq(stream, data=status.data, on_problem=lambda _: None)
    except (LogEngineError, msgspec.MsgspecError, OSError):
        return None


async def complete_lines(chunks: AsyncIterator[bytes], max_record: int) -> AsyncIterator[bytes]:
    """`chunks` cut at line ends instead; a last line gets its newline if it has none.

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
        # A larger pipe makes larger portions, each of which is noted first with --resume.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _READ_BYTES)
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
