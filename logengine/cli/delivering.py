"""Sends the lines of an input until all are on disk. Shared by `send` and `import`."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NoReturn

import click
import msgspec

from logengine.cli.messages import tell
from logengine.cli.options import Duration
from logengine.cli.status import ask_status
from logengine.cli.waiting import watch
from logengine.client.aio import AsyncClient
from logengine.client.daemon_socket import Socket
from logengine.client.settings import process_producer
from logengine.default_paths import resume_directory
from logengine.errors import AtomicWriteError, LogEngineError, NotDurable
from logengine.exchange.input import complete_lines, read_input
from logengine.protocols.status import Status
from logengine.reading import newest_seq
from logengine.resume.sending import Convert, ResumedSending
from logengine.resume.state_file import StateFile

_WINDOW_BYTES = 8 * 1024 * 1024  # of input that was sent and is not acknowledged yet
_RECORDS_MAX = _WINDOW_BYTES  # a record has at least one byte: only the bytes limit the window


resume_option = click.option(
    "--resume",
    metavar="NAME",
    help="Continue where an earlier run with this name stopped, even if a file was rotated or a "
    "journal vacuumed since.",
)

resume_anew_option = click.option(
    "--resume-anew",
    is_flag=True,
    help="With --resume: if an input differs from what an earlier run read under its name, store "
    "it from its start instead of refusing it.",
)


def check_anew(resume: str | None, *, anew: bool) -> None:
    """Raises `click.UsageError` if the option would have no effect."""
    if anew and resume is None:
        raise click.UsageError("--resume-anew needs --resume NAME")


timeout_option = click.option(
    "--timeout",
    type=Duration(),
    metavar="DURATION",
    help="Give up if the daemon is away, or does not answer, for longer than this. Default: wait "
    "forever.",
)


def deliver(
    chunks: AsyncIterator[bytes],
    stream: str,
    socket: Socket,
    *,
    timeout_s: float | None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Sends lines until all are on disk. Returns the exit status.

    `chunks` may cut lines anywhere. `progress` is called with the number of input bytes that are
    durable. Raises `InvalidStreamName`, `DaemonUnavailable` and `ProtocolError`.
    """

    async def send(client: AsyncClient) -> int:
        await _send_all(client, chunks, progress)
        return 0

    async def run() -> int:
        client = _client(stream, socket, process_producer("send"), timeout_s)
        return await _deliver(client, send, watch(client, socket, timeout_s))

    return 1 if asyncio.run(run()) else 0


def deliver_resumed(
    names: Sequence[str],
    stream: str,
    socket: Socket,
    resume: str,
    *,
    form: str,
    convert: Convert,
    anew: bool,
    timeout_s: float | None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Like `deliver`, but sends only what earlier runs named `resume` did not store of the inputs.

    Also raises `AnotherInput`, `ResumeInUse`, `DamagedResumeState`, `MalformedInput`, `OSError`.
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
            report=tell,
        )
        await sending.run(names)
        if sending.skipped:
            tell(f"skipped {sending.skipped} lines that were stored before")
        return sending.skipped

    async def run() -> int:
        client = _client(stream, socket, resume, timeout_s)  # checks the names
        # Lock the state before connecting: connecting would end another run with this name.
        try:
            with StateFile(directory, stream, resume, socket) as state:
                return await _deliver(
                    client, lambda client: send(client, state), watch(client, socket, timeout_s)
                )
        except AtomicWriteError as error:
            raise LogEngineError(
                f"{error}; --resume keeps its position there: set $LOGENGINE_STATE to use another "
                "directory"
            ) from None

    return 1 if asyncio.run(run()) else 0


def _client(stream: str, socket: Socket, producer: str, timeout_s: float | None) -> AsyncClient:
    client = AsyncClient(
        stream,
        socket=socket,
        producer=producer,
        max_records=_RECORDS_MAX,
        max_bytes=_WINDOW_BYTES,
        away_max=timeout_s,
    )
    client.tells_when_away = False  # `watch` does, also before there are records
    return client


async def _deliver(
    client: AsyncClient,
    send: Callable[[AsyncClient], Awaitable[int]],
    watching: Coroutine[Any, Any, NoReturn],
) -> int:
    """Sends all lines and waits until they are durable. Returns how many the daemon refused.

    `send` returns how many lines it skipped before the first that it sent.
    """
    try:
        sending = asyncio.ensure_future(send(client))
        others = [asyncio.create_task(client.failed()), asyncio.create_task(watching)]
        try:
            done, _ = await asyncio.wait({sending, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
            skipped = sending.result()
        finally:
            for task in (sending, *others):
                task.cancel()
            await asyncio.gather(sending, *others, return_exceptions=True)
    finally:
        with contextlib.suppress(LogEngineError):
            await client.close(timeout=0)
    for first, last, reason in client.refusals:
        _report_refusal(skipped + first, skipped + last, reason)
    reported = sum(last + 1 - first for first, last, _ in client.refusals)
    if client.refused > reported:
        tell(f"{client.refused - reported} more lines were not stored")
    return client.refused


def _report_refusal(first: int, last: int, reason: str) -> None:
    lines = f"line {first} is" if first == last else f"lines {first} to {last} are"
    why = {
        "record_too_large": "longer than the daemon's max_record",
        "over_quota": "over a quota of the daemon",
    }.get(reason, f"refused by the daemon: {reason}")
    tell(f"{lines} {why}; not stored")


async def _send_all(
    client: AsyncClient, chunks: AsyncIterator[bytes], progress: Callable[[int], None]
) -> None:
    await client.resumed_at()
    sent_bytes = 0
    async for lines in complete_lines(chunks, client.max_record):
        sent_bytes += len(lines)
        await client.send_lines(lines)
        progress(sent_bytes - client.pending_bytes)
    with contextlib.suppress(NotDurable):  # `_deliver` reports the refused lines
        await client.flush()
    progress(sent_bytes)


def _records_of_stream(socket: Socket, stream: str) -> int | None:
    """Returns how many records the stream ever had; None if this user may not know."""
    try:
        status = msgspec.json.decode(ask_status(socket), type=Status)
        return newest_seq(stream, data=status.data, on_problem=lambda _: None)
    except (LogEngineError, msgspec.MsgspecError, OSError):
        return None
