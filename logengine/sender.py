"""Sends lines to the daemon until all are durable, over as many connections as it takes."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from logengine.errors import DaemonUnavailable, ProtocolError
from logengine.record import count_lines, split_lines

WINDOW_BYTES = 8 * 1024 * 1024
_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 1.0
_ANSWER_BYTES_MAX = 1024 * 1024


class _Chunk(NamedTuple):
    """Lines with their newlines; `first` to `last` are the numbers of those not blank."""

    first: int
    last: int
    lines: bytes


class Unacked:
    """What was taken from the input and is not known to be durable. No I/O.

    Numbers count the lines of the input that are not blank, from 1.
    """

    def __init__(self) -> None:
        self._chunks: deque[_Chunk] = deque()
        self.taken = 0  # the number of the last line taken
        self.acked = 0  # the number of the last line known to be durable
        self.bytes = 0
        self.bytes_taken = 0

    @property
    def first(self) -> int:
        """The lowest number still held, or the next one to come."""
        return self._chunks[0].first if self._chunks else self.taken + 1

    def take(self, lines: bytes) -> bytes:
        """Takes complete lines; gives those to be sent, without what is durable already."""
        count = count_lines(lines)
        self.bytes_taken += len(lines)
        first, self.taken = self.taken + 1, self.taken + count
        if self.taken <= self.acked:
            return b""
        chunk = _without(_Chunk(first, self.taken, lines), self.acked)
        self._chunks.append(chunk)
        self.bytes += len(chunk.lines)
        return chunk.lines

    def acknowledge(self, number: int) -> None:
        """Lets go of everything up to `number`."""
        self.acked = max(self.acked, number)
        while self._chunks and self._chunks[0].last <= number:
            self.bytes -= len(self._chunks.popleft().lines)

    def to_send_again(self) -> list[bytes]:
        """All lines that are held and not known to be durable, in order."""
        return [_without(chunk, self.acked).lines for chunk in self._chunks]


def _without(chunk: _Chunk, acked: int) -> _Chunk:
    if chunk.first > acked:
        return chunk
    lines = list(split_lines(chunk.lines))[acked + 1 - chunk.first :]
    return _Chunk(acked + 1, chunk.last, b"".join(line + b"\n" for line in lines))


class _Answer(msgspec.Struct):
    """Any answer of the daemon; unknown keys are ignored."""

    welcome: int | None = None
    next: int = 1
    max_record: int = 0
    ack: int | None = None
    error: str | None = None
    record: int | None = None
    first: int = 0
    last: int = 0
    goodbye: str | None = None


_answers = msgspec.json.Decoder(_Answer)


class LineSender:
    """One producer of one stream. `send` may be called once.

    `timeout_s` is how long the daemon may be away, None for ever. `on_acked` is called
    with the number of the last durable line, `on_refused` with the first and the last number
    of those that were not stored, and the daemon's name for the reason.
    """

    def __init__(
        self,
        socket: Path,
        stream: str,
        producer: str,
        *,
        timeout_s: float | None = None,
        on_acked: Callable[[int], None] = lambda _: None,
        on_refused: Callable[[int, int, str], None] = lambda *_: None,
    ) -> None:
        self.unacked = Unacked()
        self.refused = 0
        self.resumed_at = 0  # how many lines were durable before the first was sent
        self._socket = socket
        self._hello = {"_hello": 1, "stream": stream, "producer": producer}
        self._timeout_s = timeout_s
        self._on_acked = on_acked
        self._on_refused = on_refused
        self._writer: asyncio.StreamWriter | None = None
        self._max_record = 0
        self._input_ended = False
        self._changed = asyncio.Event()

    async def send(self, chunks: AsyncIterator[bytes]) -> None:
        """Returns when every line of `chunks` is durable, or was refused.

        `chunks` may be cut anywhere. Raises `DaemonUnavailable`, and `ProtocolError` when
        the daemon refuses the stream or another sender takes over the producer's name.
        """
        connected = asyncio.create_task(self._stay_connected())
        taking = asyncio.create_task(self._take_all(chunks))
        try:
            done, _ = await asyncio.wait({connected, taking}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
            await connected
        finally:
            for task in (connected, taking):
                task.cancel()
            await asyncio.gather(connected, taking, return_exceptions=True)

    async def _take_all(self, chunks: AsyncIterator[bytes]) -> None:
        await self._until(lambda: self._max_record > 0)
        async for lines in complete_lines(chunks, self._max_record):
            to_send = self.unacked.take(lines)
            if to_send and self._writer is not None:
                # Where it is not connected now, it is sent with all else that is unacked.
                self._writer.write(to_send)
                with contextlib.suppress(OSError):
                    await self._writer.drain()
            await self._until(lambda: self.unacked.bytes < WINDOW_BYTES)
        self._input_ended = True
        self._changed.set()
        if self._writer is not None and not self.unacked.bytes:
            self._writer.close()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def _is_through(self) -> bool:
        return self._input_ended and self.unacked.acked >= self.unacked.taken

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        away_since = loop.time()
        pause_s = _RETRY_MIN_S
        while not self._is_through:
            try:
                reader, writer = await asyncio.open_unix_connection(
                    self._socket, limit=_ANSWER_BYTES_MAX
                )
                await self._talk(reader, writer)
                away_since = loop.time()
                pause_s = _RETRY_MIN_S
            except (OSError, asyncio.IncompleteReadError) as error:
                away_s = loop.time() - away_since
                if self._timeout_s is not None and away_s >= self._timeout_s:
                    raise DaemonUnavailable(
                        f"no daemon at {self._socket} for {away_s:.0f} s ({error}); "
                        "is `logengine run` running, and --socket its socket?"
                    ) from None
            if not self._is_through:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MAX_S)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from hello to its end; returns once it was welcomed."""
        try:
            hello = self._hello | {"first": self.unacked.first}
            writer.write(msgspec.json.encode(hello) + b"\n")
            welcome = self._read(await reader.readuntil(b"\n"))
            if welcome.welcome is None:
                raise ProtocolError(f"{self._socket}: expected a welcome from the daemon")
            if not self._max_record:
                self.resumed_at = welcome.next - 1
            self._max_record = welcome.max_record
            self._note_acked(welcome.next - 1)
            # From here on what is taken is written at once, behind what was unacked before.
            for lines in self.unacked.to_send_again():
                writer.write(lines)
            self._writer = writer
            self._changed.set()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while not self._is_through:
                    self._read(await reader.readuntil(b"\n"))
        finally:
            self._writer = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _read(self, line: bytes) -> _Answer:
        try:
            answer = _answers.decode(line)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"{self._socket}: not an answer of logengine's: {error}") from None
        if answer.ack is not None:
            self._note_acked(answer.ack)
        elif answer.error == "record_too_large" and answer.record is not None:
            self.refused += 1
            self._on_refused(answer.record, answer.record, answer.error)
        elif answer.error == "over_quota":
            self.refused += answer.last - answer.first + 1
            self._on_refused(answer.first, answer.last, answer.error)
        elif answer.error is not None:
            raise ProtocolError(f"{self._socket}: the daemon says {line.decode().strip()}")
        return answer

    def _note_acked(self, number: int) -> None:
        self.unacked.acknowledge(number)
        self._on_acked(self.unacked.acked)
        self._changed.set()


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
