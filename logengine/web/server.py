"""The life of the server: its socket, how many connections it has, its end by a signal."""

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logengine.errors import InvalidOption, NotInstalled
from logengine.web.access import Access, check_host

CONNECTIONS_MAX = 64
_TOKEN_BYTES = 24
_ADDRESS = "127.0.0.1"
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 21\r\nConnection: close\r\n\r\n"
    b"too many connections\n"
)


@dataclass(frozen=True)
class Options:
    """Where the page is served, and to whom: on `port` of this machine, or on a Unix socket."""

    data: Path
    port: int = 0
    unix: Path | None = None
    has_token: bool = True
    hosts: tuple[str, ...] = ()


def serve(options: Options, announce: Callable[[str], None]) -> None:
    """Serves the page until SIGINT or SIGTERM. Calls `announce` with its URL.

    Raises `NotInstalled` without aiohttp, `InvalidOption` for what cannot be listened on, and for
    a name that is none of a host.
    """
    try:
        import aiohttp.web  # noqa: F401
    except ImportError:
        raise NotInstalled(
            "the page needs aiohttp, which is not installed: pip install 'logengine[web]'"
        ) from None
    if not options.has_token and options.unix is None:
        raise InvalidOption(
            "a page without a token needs --unix PATH: any user may connect to a port"
        )
    for name in options.hosts:
        check_host(name)
    with _listening(options) as listener:
        asyncio.run(_serve(options, listener, announce))


async def _serve(
    options: Options, listener: socket.socket, announce: Callable[[str], None]
) -> None:
    from logengine.web.answers import Answers
    from logengine.web.app import Page

    token = secrets.token_urlsafe(_TOKEN_BYTES) if options.has_token else None
    port = 0 if options.unix is not None else listener.getsockname()[1]
    hosts = frozenset(host.lower() for host in options.hosts)
    access = Access(token, f"logengine-{port}", hosts)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    connections = Connections()
    runner = Page(Answers(options.data), access, connections.let_in).runner()
    await runner.setup()
    try:
        serve_one: Any = runner.server
        server = await loop.create_server(
            lambda: _Connection(connections, serve_one), sock=listener
        )
        announce(_url(options, port, token))
        await ended.wait()
        server.close()
    finally:
        await runner.cleanup()


class Connections:
    """The connections that there are. If there are too many, one of a stranger gives way.

    Any user may connect to a port, and is a stranger until one of the connection's requests was
    let in.
    """

    def __init__(self) -> None:
        self._strangers: dict[asyncio.BaseTransport, None] = {}
        self._let_in: set[asyncio.BaseTransport] = set()

    def add(self, transport: asyncio.WriteTransport) -> bool:
        """Adds one; returns whether there was room, or the stranger who came first gave way."""
        if len(self._strangers) + len(self._let_in) >= CONNECTIONS_MAX:
            oldest = next(iter(self._strangers), None)
            if oldest is None:
                return False
            del self._strangers[oldest]
            assert isinstance(oldest, asyncio.WriteTransport)
            oldest.abort()
        self._strangers[transport] = None
        return True

    def let_in(self, transport: asyncio.BaseTransport | None) -> None:
        """Keeps one, because it had a request that was let in."""
        if transport in self._strangers:
            del self._strangers[transport]
            self._let_in.add(transport)

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """Makes room for another one."""
        self._strangers.pop(transport, None)
        self._let_in.discard(transport)


class _Connection(asyncio.Protocol):
    """A connection of aiohttp, if there are not too many."""

    def __init__(self, connections: Connections, serve: Callable[[], asyncio.Protocol]) -> None:
        self._connections = connections
        self._serve = serve
        self._served: asyncio.Protocol | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`; so are the others."""
        assert isinstance(transport, asyncio.WriteTransport)
        if not self._connections.add(transport):
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._transport = transport
        self._served = self._serve()
        self._served.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Makes room for another one."""
        if self._transport is not None:
            self._connections.remove(self._transport)
        if self._served is not None:
            self._served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._served is not None:
            self._served.data_received(data)

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return None if self._served is None else self._served.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._served is not None:
            self._served.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._served is not None:
            self._served.resume_writing()


def _url(options: Options, port: int, token: str | None) -> str:
    query = "" if token is None else f"?token={token}"
    if options.unix is None:
        return f"http://{_ADDRESS}:{port}/{query}"
    # Browsers reach a Unix socket by a port that is forwarded to it, as by `ssh -L`.
    return f"http://localhost/{query} on the socket {options.unix}"


@contextlib.contextmanager
def _listening(options: Options) -> Iterator[socket.socket]:
    if options.unix is None:
        with _bound_to_port(options.port) as listener:
            yield listener
        return
    path = os.fspath(options.unix)
    with _bound_to_path(path) as listener:
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _bound_to_port(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_ADDRESS, port))
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        what = (
            "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror}"
        )
        raise InvalidOption(f"port {port} {what}; give another one with --port, or 0") from None
    return listener


def _bound_to_path(path: str) -> socket.socket:
    """A socket at `path` to which only this user may connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_unused(path)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        raise InvalidOption(f"{path} cannot be bound: {error.strerror or error}") from None
    except InvalidOption:
        listener.close()
        raise
    return listener


def _remove_unused(path: str) -> None:
    """Removes a socket on which nothing listens. Raises `InvalidOption` for anything else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidOption(f"{path} exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise InvalidOption(f"{path} is in use by another process; name another path")
    os.unlink(path)
