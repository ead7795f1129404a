"""The daemon's listening sockets: those that systemd passed, and those that it binds itself."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from logengine.daemon.config_sections import Config, ListenConfig
from logengine.daemon.network_sockets import NetworkListening, bind_network, name_in_network
from logengine.daemon.systemd import passed_listeners
from logengine.errors import ConfigError
from logengine.intake.listeners import bind_listener, is_of
from logengine.protocols.wire import Transport
from logengine.socket_address import (
    is_abstract,
    name_of,
    network_address,
    network_text,
    one_spelling,
)

log = structlog.get_logger()


class Listening:
    """A listening socket and its file.

    An `inherited` socket belongs to systemd: it outlives this process, and only systemd can bind it
    again.
    """

    def __init__(self, listener: socket.socket, config: ListenConfig, *, inherited: bool) -> None:
        self.listener = listener
        self.config = config
        self.inherited = inherited
        self.path = Path(config.path)
        self.name = config.path
        self._is_abstract = is_abstract(config.path)
        self._identity = _identity(self.path)

    @property
    def is_named(self) -> bool:
        """Whether the file at `path` is still that of this socket. Ask only while it is open.

        An open socket keeps the inode of its file. Once it is closed, the file of the next daemon
        may get the same number.
        """
        if self._is_abstract:
            return True
        if self._identity is None:
            return self.inherited  # systemd may see a file that this process cannot see
        return _identity(self.path) == self._identity

    def bind_again(self) -> socket.socket:
        """Binds `path` to a new socket, which becomes `listener`. Returns the previous one.

        Raises `ConfigError` like `bind_listener`.
        """
        before = self.listener
        self.listener = bind_listener(self.path, self.config.mode, self.config.type)
        self._identity = _identity(self.path)
        return before

    def remove_path(self) -> None:
        """Removes the file, if it is the daemon's own, before the socket is closed.

        While the socket is open, no other daemon takes its path. A failure does not abort the stop.
        """
        if self.inherited or self._is_abstract or not self.is_named:
            return
        self._identity = None  # from now on, the path is the next daemon's
        try:
            os.unlink(self.path)
        except OSError as error:
            # The next daemon replaces it, like the socket of a dead daemon.
            log.warning("socket_not_removed", socket=str(self.path), error=str(error))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def listening(
    config: Config, environ: Mapping[str, str]
) -> Iterator[list[Listening | NetworkListening]]:
    """Opens the configured sockets until the block ends. Raises `ConfigError`."""
    passed = {
        _passed_name(listener): listener for listener in passed_listeners(environ, os.getpid())
    }
    sockets: list[Listening | NetworkListening] = []
    try:
        for listen in config.listen:
            inherited = passed.pop(one_spelling(listen.path), None)
            if inherited is None and is_abstract(listen.path):
                raise ConfigError(
                    f"systemd passed no socket {listen.path}; the daemon does not create an "
                    "abstract socket itself, since anybody could connect to it: add "
                    f"ListenStream={listen.path} to the socket unit, or use a path"
                )
            listener = inherited or bind_listener(Path(listen.path), listen.mode, listen.type)
            sockets.append(Listening(listener, listen, inherited=inherited is not None))
            if not is_of(listener, listen.type):
                raise ConfigError(
                    f"systemd passed a socket at {listen.path} that is not of type "
                    f"{listen.type!r}, as its [[listen]] says; change that, or the socket unit "
                    "(ListenStream, ListenDatagram)"
                )
        for network in config.network:
            address = network_text(*network_address(network.address))
            inherited = passed.pop(_passed_as(address, network.type), None)
            listener = inherited or bind_network(network)
            try:
                sockets.append(NetworkListening(listener, network, inherited=inherited is not None))
            except ConfigError:
                listener.close()
                raise
        if passed:
            raise ConfigError(
                f"systemd passed a socket at {', '.join(passed)}, which no [[listen]] or "
                "[[network]] names; add one with that path or address, or change the socket unit"
            )
        yield sockets
    finally:
        remove_paths(sockets)
        for each in sockets:
            each.listener.close()


def _passed_name(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return one_spelling(name_of(listener.getsockname()))
    is_stream = listener.type == socket.SOCK_STREAM
    return _passed_as(name_in_network(listener), "stream" if is_stream else "datagram")


def _passed_as(address: str, transport: Transport) -> str:
    """Returns the name of a network socket; TCP and UDP may have the same address."""
    return f"{address} ({'TCP' if transport == 'stream' else 'UDP'})"


def remove_paths(sockets: Sequence[Listening | NetworkListening]) -> None:
    """Removes the files of the daemon's own sockets, so that no sender connects any more."""
    for each in sockets:
        if isinstance(each, Listening):
            each.remove_path()
