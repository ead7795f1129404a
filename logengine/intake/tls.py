"""Ends TLS: gives the server a socket with what a connection says, decrypted.

A thread with an event loop of its own makes the handshakes, decrypts, and encrypts the answers. It
has one end of a pair of Unix sockets, and the server the other, as any connection: admission,
quotas and turns are the same. While the server does not read, the pair fills up, nothing is
decrypted, and TCP holds up the sender. A handshake, which may cost a millisecond, holds up nobody
but other such connections.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Coroutine

import structlog

log = structlog.get_logger()

# What is passed on at a time, and at most kept here of each connection; TLS has records of 16 KiB.
_PIECE_BYTES = 16 * 1024
# What waits in the pair, so that many slow connections take little of the kernel's memory.
_PAIR_BYTES = 64 * 1024
_STOP_S = 2.0
_ARRIVED_S = 0.05
# How long the sender may take to read the last answers.
_CLOSE_S = 2.0


class TlsSockets:
    """The connections that are decrypted. The thread is started with the first of them."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of the thread's loop: what decrypts, and what encrypts the answers.
        self._decrypting: set[asyncio.Task[None]] = set()
        self._encrypting: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()  # used in the thread alone

    def decrypted(
        self,
        accepted: socket.socket,
        context: ssl.SSLContext,
        handshake_timeout_s: float,
        addr: str,
    ) -> socket.socket:
        """Returns the socket that says what the encrypted, non-blocking one does.

        What is written to it is sent encrypted. The encrypted one is closed after this one, and
        this one ends with the encrypted one. If the handshake fails, or takes too long, this one
        ends at once.
        """
        loop = self._started()
        inner, outer = socket.socketpair()
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PAIR_BYTES)
        inner.setblocking(False)
        outer.setblocking(False)
        connection = _Connection(accepted, inner, addr)
        decrypting = self._serve(connection, context, handshake_timeout_s)
        loop.call_soon_threadsafe(self._start, decrypting, self._decrypting)
        return outer

    async def stop(self) -> None:
        """Decrypts what has arrived by now and nothing more. Returns when the server can read it.

        What finds no room within two seconds is given up; nobody was told that it is stored.
        Answers are still encrypted.
        """
        if self._loop is not None:
            ending = asyncio.run_coroutine_threadsafe(self._end_decrypting(), self._loop)
            await asyncio.wrap_future(ending)

    async def answered(self) -> None:
        """Returns when all answers of closed connections are sent, or after two seconds."""
        if self._loop is not None:
            waiting = asyncio.run_coroutine_threadsafe(self._end_encrypting(), self._loop)
            await asyncio.wrap_future(waiting)

    def close(self) -> None:
        """Ends all connections and the thread."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._cancel_all)
        self._thread.join()
        self._loop = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._run, args=(self._loop,), name="logengine-tls", daemon=True
            )
            self._thread.start()
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def _start(
        self, running: Coroutine[None, None, None], among: set[asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        assert self._loop is not None
        task = self._loop.create_task(running)
        among.add(task)
        task.add_done_callback(among.discard)
        return task

    def _cancel_all(self) -> None:
        assert self._loop is not None
        tasks = [*self._decrypting, *self._encrypting]
        for task in tasks:
            task.cancel()
        self._loop.create_task(self._halt(tasks))

    async def _halt(self, tasks: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports detach in the next turn
        asyncio.get_running_loop().stop()

    async def _end_decrypting(self) -> None:
        self._stopping.set()
        if self._decrypting:
            await asyncio.wait(self._decrypting, timeout=_STOP_S)
        for task in self._decrypting:
            task.cancel()

    async def _end_encrypting(self) -> None:
        if self._encrypting:
            await asyncio.wait(self._encrypting, timeout=_CLOSE_S)

    async def _serve(
        self, connection: "_Connection", context: ssl.SSLContext, handshake_timeout_s: float
    ) -> None:
        if not await connection.shakes_hands(context, handshake_timeout_s):
            return
        decrypting = asyncio.current_task()
        assert decrypting is not None
        encrypting = self._start(connection.encrypt(), self._encrypting)
        encrypting.add_done_callback(lambda _: decrypting.cancel())
        await connection.decrypt(self._stopping)


class _Connection:
    """An encrypted connection, and the socket for what it says. Lives in the thread."""

    def __init__(self, accepted: socket.socket, inner: socket.socket, addr: str) -> None:
        self._accepted = accepted
        self._inner = inner
        self._addr = addr
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def shakes_hands(self, context: ssl.SSLContext, timeout_s: float) -> bool:
        """Returns whether the handshake succeeds; if not, both sockets are closed."""
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(_PIECE_BYTES)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        try:
            async with asyncio.timeout(timeout_s):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, self._accepted, ssl=context, ssl_shutdown_timeout=_CLOSE_S
                )
        except (TimeoutError, OSError) as error:
            self._failed(str(error) or "the handshake took too long")
            self._inner.close()
            return False
        except asyncio.CancelledError:
            self._inner.close()
            raise
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        return True

    async def decrypt(self, stopping: asyncio.Event) -> None:
        """Passes on what the sender says, until it ends; after a stop, what has arrived by then."""
        loop = asyncio.get_running_loop()
        stopped = loop.create_task(stopping.wait())
        reading: asyncio.Task[bytes] | None = None
        try:
            while True:
                reading = loop.create_task(self._reader.read(_PIECE_BYTES))
                await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
                if stopped.done():  # what has arrived is there after a turn or two
                    await asyncio.wait((reading,), timeout=_ARRIVED_S)
                    if not reading.done():
                        return  # the server ends it, and may still answer
                try:
                    data = reading.result()
                except OSError as error:
                    self._failed(str(error))
                    data = b""
                if not data:
                    self._inner.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(self._inner, data)
        except OSError:
            return  # the server has closed its end
        finally:
            stopped.cancel()
            if reading is not None:
                reading.cancel()

    async def encrypt(self) -> None:
        """Sends what the server writes, until it closes its end; then closes the connection."""
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(OSError):  # either end is gone
                while data := await loop.sock_recv(self._inner, _PIECE_BYTES):
                    self._writer.write(data)
                    await self._writer.drain()
            self._writer.close()
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()
            self._inner.close()

    def _failed(self, error: str) -> None:
        log.info("tls_failed", addr=self._addr, error=error)
