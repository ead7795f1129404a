"""Ends TLS: gives the server a socket with what a connection says, decrypted.

A thread with an event loop of its own makes the handshakes and decrypts, and writes to one end of a
pair of Unix sockets. The server reads the other end as any connection: admission, quotas and turns
are the same. While it does not read, the pair fills up, nothing is decrypted, and TCP holds up the
sender. A handshake, which may cost a millisecond, holds up nobody but other such connections.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Coroutine

import structlog

log = structlog.get_logger()

# What is decrypted at a time, and at most kept here of each connection; TLS has records of 16 KiB.
_PIECE_BYTES = 16 * 1024
# What waits in the pair, so that many slow connections take little of the kernel's memory.
_PAIR_BYTES = 64 * 1024
_STOP_S = 2.0
_ARRIVED_S = 0.05


class TlsSockets:
    """The connections that are decrypted. The thread is started with the first of them."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # of the thread's loop
        self._stopping = asyncio.Event()  # used in the thread alone

    def decrypted(
        self,
        accepted: socket.socket,
        context: ssl.SSLContext,
        handshake_timeout_s: float,
        addr: str,
    ) -> socket.socket:
        """Returns the socket that says what the encrypted, non-blocking one does.

        The encrypted one is closed when this one is, and the other way round. If the handshake
        fails, or takes too long, this one ends at once.
        """
        loop = self._started()
        inner, outer = socket.socketpair()
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PAIR_BYTES)
        inner.setblocking(False)
        outer.setblocking(False)
        decrypting = self._decrypt(accepted, inner, context, handshake_timeout_s, addr)
        loop.call_soon_threadsafe(self._start, decrypting)
        return outer

    async def stop(self) -> None:
        """Decrypts what has arrived by now and nothing more. Returns when the server can read it.

        What finds no room within two seconds is given up; nobody was told that it is stored.
        """
        if self._loop is None:
            return
        ending = asyncio.run_coroutine_threadsafe(self._end_all(), self._loop)
        await asyncio.wrap_future(ending)

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

    def _start(self, decrypting: Coroutine[None, None, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(decrypting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_all(self) -> None:
        assert self._loop is not None
        for task in self._tasks:
            task.cancel()
        self._loop.create_task(self._halt(list(self._tasks)))

    async def _halt(self, tasks: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports detach in the next turn
        asyncio.get_running_loop().stop()

    async def _end_all(self) -> None:
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()

    async def _decrypt(
        self,
        accepted: socket.socket,
        inner: socket.socket,
        context: ssl.SSLContext,
        handshake_timeout_s: float,
        addr: str,
    ) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_PIECE_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.closing(inner):
            try:
                async with asyncio.timeout(handshake_timeout_s):
                    transport, _ = await loop.connect_accepted_socket(
                        lambda: protocol, accepted, ssl=context
                    )
            except (TimeoutError, OSError) as error:
                log.info("tls_failed", addr=addr, error=str(error) or "the handshake took too long")
                return
            try:
                await self._forward(reader, inner)
            except OSError as error:
                log.info("tls_failed", addr=addr, error=str(error))
            finally:
                transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, inner: socket.socket) -> None:
        """Writes what is decrypted to `inner`, until either side has ended."""
        loop = asyncio.get_running_loop()
        gone = loop.create_task(loop.sock_recv(inner, 1))  # the server closes its end
        stopping = loop.create_task(self._stopping.wait())
        try:
            while not gone.done():
                reading = loop.create_task(reader.read(_PIECE_BYTES))
                await asyncio.wait((reading, gone, stopping), return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():  # what has arrived is there after a turn or two
                    await asyncio.wait((reading, gone), timeout=_ARRIVED_S)
                if not reading.done():
                    reading.cancel()
                    return
                if not (data := reading.result()):
                    return
                await loop.sock_sendall(inner, data)
        finally:
            gone.cancel()
            stopping.cancel()
