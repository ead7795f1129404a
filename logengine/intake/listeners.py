"""Listening sockets: binds them, accepts connections while there is room, and closes them."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from logengine.errors import ConfigError
from logengine.intake.credentials import ask_for_senders
from logengine.intake.network import Network
from logengine.intake.router import Router
from logengine.protocols.wire import Transport, WireProtocol
from logengine.socket_address import tcp_address_of

log = structlog.get_logger()

_BACKLOG = 1024
_DIRECTORY_MODE = 0o755
_ACCEPTS_PER_WAKE = 64
_ACCEPT_PAUSE_S = 0.5
_NOBODY_TO_ACCEPT = {errno.EAGAIN, errno.ECONNABORTED, errno.EINTR}


@dataclass(frozen=True)
class Entrance:
    """What a listener is for: its records go to `stream`, unless a hello or the router says else.

    `network` has the limits of a socket of the network.
    """

    stream: str
    protocol: WireProtocol
    router: Router | None = None
    network: Network | None = None


class Listeners:
    """The stream sockets at which senders connect.

    `take` is called with each accepted connection, which is non-blocking, and what its listener is
    for. `room_in_s` makes room for one connection, and returns
    0, or after how many seconds to try again. Meanwhile nothing is accepted; `accept_again` resumes
    sooner.
    """

    def __init__(
        self,
        take: Callable[[socket.socket, Entrance], None],
        room_in_s: Callable[[], float],
    ) -> None:
        self._take = take
        self._room_in_s = room_in_s
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[socket.socket, Entrance] = {}
        self._inherited: set[socket.socket] = set()
        self._accepting = True
        self._resuming: asyncio.TimerHandle | None = None
        self._is_failing = False

    def add(self, listener: socket.socket, entrance: Entrance, *, inherited: bool) -> None:
        """Starts accepting on a listening socket.

        An inherited socket outlives this process: connections that wait there at a stop are left to
        the next daemon.
        """
        listener.setblocking(False)
        self._listeners[listener] = entrance
        if inherited:
            self._inherited.add(listener)
        self._loop.add_reader(listener, self._accept, listener)

    def remove(self, listener: socket.socket) -> None:
        """Accepts all connections that wait at a listener, if it is one of these, and closes it.

        A connection without room is closed with the listener; nothing of it was acknowledged.
        """
        if listener not in self._listeners:
            return
        while self._accept(listener):
            pass
        self._loop.remove_reader(listener)
        del self._listeners[listener]
        listener.close()

    def stop(self) -> None:
        """Accepts all connections that wait at listeners of our own, and closes all listeners."""
        for listener in self._listeners:
            if listener not in self._inherited:
                while self._accept(listener):
                    pass  # a sender that connected may have sent records already
        self._stop_accepting()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._resuming is not None:
            self._resuming.cancel()

    def accept_again(self) -> None:
        """Resumes accepting, if it was stopped and there is room."""
        if self._accepting:
            return
        if pause_s := self._room_in_s():
            self._resume_in(pause_s)
            return
        self._accepting = True
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Accepts some waiting connections. Returns False if none is left or none can be taken."""
        for _ in range(_ACCEPTS_PER_WAKE):
            if pause_s := self._room_in_s():
                self._stop_accepting()
                self._resume_in(pause_s)
                return False
            try:
                accepted, _ = listener.accept()
            except OSError as error:
                if error.errno in _NOBODY_TO_ACCEPT:
                    return False
                # Out of descriptors or memory: connections in the backlog are accepted later.
                if not self._is_failing:
                    log.error("accept_failed", error=str(error), retry_every_s=_ACCEPT_PAUSE_S)
                self._is_failing = True
                self._stop_accepting()
                self._resume_in(_ACCEPT_PAUSE_S)
                return False
            if self._is_failing:
                self._is_failing = False
                log.warning("accepting_again")
            accepted.setblocking(False)
            self._take(accepted, self._listeners[listener])
        return True

    def _resume_in(self, pause_s: float) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = self._loop.call_later(pause_s, self.accept_again)

    def _stop_accepting(self) -> None:
        self._accepting = False
        for listener in self._listeners:
            self._loop.remove_reader(listener)


_KINDS: Mapping[Transport, socket.SocketKind] = {
    "stream": socket.SOCK_STREAM,
    "datagram": socket.SOCK_DGRAM,
}


_QUEUE_SETTING = Path("/proc/sys/net/unix/max_dgram_qlen")


def datagram_queue_max() -> int | None:
    """Returns how many datagrams wait in the kernel for a socket that is bound now, if known."""
    try:
        # The kernel adds one to its limit.
        return int(_QUEUE_SETTING.read_text()) + 1
    except (OSError, ValueError):
        return None


def is_of(listener: socket.socket, transport: Transport) -> bool:
    """Whether a socket has the type that `transport` needs."""
    return listener.type == _KINDS[transport]


def bind_listener(path: Path, mode: int, transport: Transport = "stream") -> socket.socket:
    """Returns a listening Unix socket at `path`; replaces one that a dead daemon left there.

    Raises `ConfigError` if `path` is something else, if a process listens there already, or if the
    directory, or a link to it, belongs to another user, who could replace this socket.
    """
    try:
        # Whatever the umask, nobody else may replace the socket.
        path.parent.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
        owners = {path.parent.lstat().st_uid, path.parent.stat().st_uid}
    except OSError as error:
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from error
    if others := owners - {0, os.geteuid()}:
        raise ConfigError(
            f"cannot listen at {path}: its directory belongs to user {min(others)}, expected root "
            f"or user {os.geteuid()}; choose another with --socket"
        )
    _remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, _KINDS[transport])
    try:
        if transport == "datagram":
            ask_for_senders(listener)
        listener.bind(os.fspath(path))
        os.chmod(path, mode)
        if transport == "stream":
            listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from error
    return listener


def bind_tcp_listener(address: str) -> socket.socket:
    """Returns a listening socket of TCP at `address`, such as `127.0.0.1:4318`.

    Raises `ConfigError` if it cannot be bound.
    """
    where = tcp_address_of(address)
    assert where is not None, "the configuration was checked"
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A connection of the last daemon may be in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen at {address}: {error.strerror or error}") from error
    return listener


def _remove_stale_socket(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(
            f"cannot listen at {path}: it exists and is not a socket; remove it, or choose another "
            "path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            _remove(path)
            return
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:  # a datagram socket that a process has open
                raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from error
    raise ConfigError(f"cannot listen at {path}: another process listens there already")


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        why = "it is a mount point" if error.errno == errno.EBUSY else error.strerror
        raise ConfigError(
            f"cannot listen at {path}: the socket of a daemon that is gone cannot be removed: "
            f"{why}; remove or unmount it, or choose another path"
        ) from error
