"""Runs a command, sends its output line by line, and then how it ended."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence

from logengine.client.aio import AsyncClient
from logengine.client.encoding import encode_record
from logengine.client.sender import cut
from logengine.command.child_process import ChildProcess, End, OutputPipe, running
from logengine.command.command_output import OutputLines
from logengine.errors import LogEngineError, NotDurable
from logengine.format.record import count_lines

# How long to wait, before the first line, for the daemon to say how long a record may be.
_WELCOME_WITHIN_S = 1.0
# How long to keep reading from processes that the command left running with its pipes open.
_LAST_WORDS_S = 1.0


async def execute(
    command: Sequence[str], client: AsyncClient, *, timeout_s: float, tell: Callable[[str], None]
) -> End:
    """Runs `command` to its end and sends its output with `client`, which it then closes.

    After the command has ended, waits up to `timeout_s` for records that are not durable yet. If
    records are lost all the same, calls `tell` with a line that says so; the result stays the
    command's, because a command must not fail because of its log. Raises `CommandNotStarted`. See
    `running` for where it may be called.
    """
    execution = _Execution(client, tell)
    try:
        async with running(command) as child:
            end = await execution.run(command, child, timeout_s)
            await execution.close()
            return end
    except BaseException:
        with contextlib.suppress(LogEngineError):
            await client.close(timeout=0)
        raise


class _Execution:
    def __init__(self, client: AsyncClient, tell: Callable[[str], None]) -> None:
        self._client = client
        client.tells_when_away = False  # standard error belongs to the command
        self._tell = tell
        self._has_failed = False
        self._unsent = 0  # records that the client did not accept
        self._is_all_read = False

    async def run(self, command: Sequence[str], child: ChildProcess, timeout_s: float) -> End:
        """Sends all output, and waits until it is durable or the time is up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        reading = asyncio.create_task(self._read_all(child))
        try:
            end = await child.ended()
            ended = loop.time()
            for pipe in child.outputs.values():
                pipe.command_ended()
                loop.call_later(_LAST_WORDS_S, pipe.give_up)
            # Reading may start only after the wait for the welcome.
            deadline = ended + _WELCOME_WITHIN_S + _LAST_WORDS_S + timeout_s
            await _finish(reading, child, deadline)
        finally:
            reading.cancel()
        record = _end_record(command, child.pid, end, ended - started)
        ending = asyncio.create_task(self._send_last(record))
        await _finish(ending, child, min(deadline, loop.time() + timeout_s))
        return end

    async def close(self) -> None:
        """Closes the client, and reports what was lost."""
        lost: list[str] = []
        try:
            await self._client.close(timeout=0)
        except NotDurable as error:
            lost.append(str(error))
        except LogEngineError as error:
            pending = self._client.pending
            lost.append(f"{pending} records may not be durable: {error}")
        if self._unsent:
            lost.append(f"{self._unsent} records could not be sent")
        if not self._is_all_read:
            lost.append("the end of the command's output was not read")
        if self._client.dropped:
            lost.append(f"{self._client.dropped} records were dropped for lack of space")
        if self._client.refused:
            lost.append(f"the daemon refused {self._client.refused} records")
        if lost:
            self._tell("; ".join(lost))

    async def _read_all(self, child: ChildProcess) -> None:
        with contextlib.suppress(LogEngineError):
            await self._client.resumed_at(_WELCOME_WITHIN_S)
        async with asyncio.TaskGroup() as readers:
            for fd, pipe in child.outputs.items():
                readers.create_task(self._read(pipe, OutputLines(fd)))
        self._is_all_read = True

    async def _read(self, pipe: OutputPipe, lines: OutputLines) -> None:
        while data := await pipe.read():
            await self._send(lines.receive(data, self._client.max_record))
        await self._send(lines.end(self._client.max_record))

    async def _send_last(self, record: dict[str, object]) -> None:
        line = encode_record(record)
        if len(line) > self._client.max_record + 1:
            line = encode_record(cut(record, self._client.max_record))
        await self._send(line)
        with contextlib.suppress(LogEngineError):  # `close` reports it
            await self._client.flush()

    async def _send(self, lines: bytes) -> None:
        count = count_lines(lines)
        self._unsent += count
        try:
            await self._client.send_lines(lines)
        except LogEngineError as error:
            if not self._has_failed:
                self._has_failed = True
                self._tell(f"{error}; what the command writes from now on is lost")
            return
        self._unsent -= count


async def _finish(task: asyncio.Task[None], child: ChildProcess, deadline: float) -> None:
    """Returns when `task` is done, the time is up, or the user interrupts the wait."""
    interrupt = asyncio.create_task(child.interrupted.wait())
    timeout_s = deadline - asyncio.get_running_loop().time()
    try:
        await asyncio.wait({task, interrupt}, timeout=timeout_s, return_when="FIRST_COMPLETED")
    finally:
        task.cancel()
        interrupt.cancel()
        await asyncio.gather(task, interrupt, return_exceptions=True)
    if not task.cancelled():
        task.result()


def _end_record(command: Sequence[str], pid: int, end: End, duration_s: float) -> dict[str, object]:
    return {
        "level": "info" if end.status == 0 else "error",
        "event": "exited",
        "command": list(command),
        "pid": pid,
        "status": end.status,
        "signal": None if end.signal is None else _signal_name(end.signal),
        "duration_s": round(duration_s, 3),
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"
