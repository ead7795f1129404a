"""Ends TLS: gives the server a socket with what a connection says, decrypted.

A thread with an event loop of its own makes the handshakes, decrypts, and encrypts the answers. It
has one end of a pair of Unix sockets, and the server the other, as any connection: admission,
quotas and turns are the same. While the server does not read, the pair fills up, nothing is
decrypted, and TCP holds up the sender. A handshake, which may cost a millisecond, holds up nobody
but other such connections.
"""

import asyncio
import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Coroutine
from math import inf

import structlog

from logengine.intake.network import bytes_waiting

log = structlog.get_logger()

# What is read, and passed on, at a time, and so at most kept here of each connection; TLS has
# records of 16 KiB.
_RECEIVE_BYTES = 64 * 1024
_PIECE_BYTES = 16 * 1024
# What waits in the pair, so that many slow connections take little of the kernel's memory.
_PAIR_BYTES = 64 * 1024
_STOP_S = 2.0
# How long the sender may take to read the last answers.
_CLOSE_S = 2.0


class TlsSockets:
    """The connections that are decrypted. The thread is started with the first of them."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hangups: _Hangups
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
        connection = _Connection(accepted, inner, addr, self._hangups)
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
            self._hangups = _Hangups(self._loop)
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
            self._hangups.close()
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
        self._start(connection.encrypt(decrypting), self._encrypting)
        await connection.decrypt(self._stopping)


class _Hangups:
    """Notices that the other ends of sockets are closed, even if what they wrote is still unread.

    For a loop, what is unread would hide it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    async def wait(self, of: socket.socket) -> None:
        """Returns once the other end is closed. The socket must stay open until then."""
        descriptor = of.fileno()
        closed = self._waiting[descriptor] = self._loop.create_future()
        # Without any event: that a socket is closed is always reported (epoll_ctl(2)).
        self._epoll.register(descriptor, select.EPOLLONESHOT)
        try:
            await closed
        finally:
            del self._waiting[descriptor]
            with contextlib.suppress(OSError):  # it is closed: the thread ends
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Notices nothing more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            closed = self._waiting.get(descriptor)
            if closed is not None and not closed.done():
                closed.set_result(None)


class _Connection:
    """An encrypted connection, and the socket for what it says. Lives in the thread.

    asyncio's own streams for TLS discard what has arrived and is not read yet when a connection is
    reset.
    """

    def __init__(
        self, accepted: socket.socket, inner: socket.socket, addr: str, hangups: _Hangups
    ) -> None:
        self._accepted = accepted
        self._inner = inner
        self._addr = addr
        self._hangups = hangups
        self._loop: asyncio.AbstractEventLoop
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._tls: ssl.SSLObject
        self._sending = asyncio.Lock()

    async def shakes_hands(self, context: ssl.SSLContext, timeout_s: float) -> bool:
        """Returns whether the handshake succeeds; if not, both sockets are closed.

        It ends at once if the server closes its end meanwhile, because there are too many.
        """
        self._loop = asyncio.get_running_loop()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_side=True)
        handshake = self._loop.create_task(self._shake_hands())
        closed = self._loop.create_task(self._hangups.wait(self._inner))
        succeeds = False
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait((handshake, closed), return_when=asyncio.FIRST_COMPLETED)
            if handshake.done():
                handshake.result()
                succeeds = True
        except (TimeoutError, OSError) as error:
            self._failed(str(error) or "the handshake took too long")
        finally:
            handshake.cancel()
            closed.cancel()
            try:
                await asyncio.wait((handshake, closed))
            finally:
                if not succeeds:
                    self._accepted.close()
                    self._inner.close()
        return succeeds

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send()
                data = await self._loop.sock_recv(self._accepted, _RECEIVE_BYTES)
                self._receive(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the client is gone
                    await self._send()  # what is wrong
                raise
            else:
                await self._send()
                return

    async def decrypt(self, stopping: asyncio.Event) -> None:
        """Passes on what the sender says, until it ends; after a stop, what has arrived by then."""
        stopped = self._loop.create_task(stopping.wait())
        left_bytes: float = inf  # that a stop still reads
        reading: asyncio.Task[bytes] | None = None
        try:
            while await self._pass_on_decrypted() and left_bytes > 0:
                size_bytes = int(min(left_bytes, _RECEIVE_BYTES))
                reading = self._loop.create_task(self._received(size_bytes))
                await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
                if stopped.done() and left_bytes == inf:
                    left_bytes = bytes_waiting(self._accepted)
                    if not (left_bytes or reading.done()):
                        return  # the server ends it, and may still answer
                    left_bytes += len(reading.result()) if reading.done() else 0
                data = await reading
                left_bytes -= len(data)
                self._receive(data)
        except OSError:
            return  # the server has closed its end
        finally:
            stopped.cancel()
            if reading is not None:
                reading.cancel()

    async def _received(self, size_bytes: int) -> bytes:
        try:
            return await self._loop.sock_recv(self._accepted, size_bytes)
        except OSError as error:  # reset by the sender; everything it had sent was read before this
            self._failed(str(error))
            return b""

    def _receive(self, data: bytes) -> None:
        if data:
            self._arrived.write(data)
        else:
            self._arrived.write_eof()

    async def _pass_on_decrypted(self) -> bool:
        """Passes on what can be decrypted. Returns whether more may come. Raises `OSError`."""
        while True:
            try:
                data = self._tls.read(_PIECE_BYTES)
            except ssl.SSLWantReadError:
                if self._leaving.pending:  # otherwise, answers that wait would hold this up
                    with contextlib.suppress(OSError):  # the next read finds out
                        await self._send()
                return True
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            except ssl.SSLError as error:
                self._failed(str(error))
                data = b""
            if not data:
                self._inner.shutdown(socket.SHUT_WR)
                return False
            await self._loop.sock_sendall(self._inner, data)

    async def encrypt(self, decrypting: "asyncio.Task[None]") -> None:
        """Sends what the server writes, until it closes its end; then closes the connection.

        After that, the sender has two seconds to read the rest.
        """
        answering = self._loop.create_task(self._answer(decrypting))
        closed = self._loop.create_task(self._hangups.wait(self._inner))
        try:
            await asyncio.wait((answering, closed), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((answering,), timeout=_CLOSE_S)
        finally:
            for task in (answering, closed, decrypting):
                task.cancel()
            try:
                await asyncio.wait((answering, closed))
            finally:
                self._accepted.close()
                self._inner.close()

    async def _answer(self, decrypting: "asyncio.Task[None]") -> None:
        is_there = True
        with contextlib.suppress(OSError):  # the server has closed its end
            while data := await self._loop.sock_recv(self._inner, _PIECE_BYTES):
                # What the sender has sent is decrypted even if it has gone.
                is_there = is_there and await self._sends(data)
        decrypting.cancel()
        await asyncio.wait((decrypting,))
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await self._end()

    async def _sends(self, data: bytes) -> bool:
        """Sends an answer. Returns whether the sender is still there."""
        try:
            self._tls.write(data)
            await self._send()
        except OSError:
            return False
        return True

    async def _end(self) -> None:
        """Ends what the sender may read, and discards what it still sends, until it has ended.

        A close with something unread resets a connection, and discards answers under way.
        """
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._send()
        self._accepted.shutdown(socket.SHUT_WR)
        while await self._loop.sock_recv(self._accepted, _RECEIVE_BYTES):
            pass

    async def _send(self) -> None:
        async with self._sending:
            if data := self._leaving.read():
                await self._loop.sock_sendall(self._accepted, data)

    def _failed(self, error: str) -> None:
        log.info("tls_failed", addr=self._addr, error=error)
