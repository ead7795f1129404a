"""The daemon's listening sockets: those that systemd passed, and those that it makes."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from logengine.daemon.config_sections import Config, ListenConfig
from logengine.daemon.systemd import passed_listeners
from logengine.errors import ConfigError
from logengine.intake.listeners import bind_listener, is_of


class Listening(NamedTuple):
    """A listening socket. One that is `inherited` is somebody else's too, and stays."""

    listener: socket.socket
    config: ListenConfig
    inherited: bool


@contextlib.contextmanager
def listening(config: Config, environ: Mapping[str, str]) -> Iterator[list[Listening]]:
    """The sockets of the configuration, until the block ends. Raises `ConfigError`."""
    passed = {
        os.path.realpath(listener.getsockname()): listener
        for listener in passed_listeners(environ, os.getpid())
    }
    sockets: list[Listening] = []
    try:
        for listen in config.listen:
            inherited = passed.pop(os.path.realpath(listen.path), None)
            listener = inherited or bind_listener(Path(listen.path), listen.mode, listen.type)
            sockets.append(Listening(listener, listen, inherited is not None))
            if not is_of(listener, listen.type):
                raise ConfigError(
                    f"systemd passed a socket at {listen.path} that is not of type "
                    f"{listen.type!r}, as its [[listen]] says; change that, or the socket unit "
                    "(ListenStream, ListenDatagram)"
                )
        if passed:
            raise ConfigError(
                f"systemd passed a socket at {', '.join(passed)}, which no [[listen]] names; "
                "add one with that path, or change the socket unit"
            )
        yield sockets
    finally:
        remove_paths(sockets)
        for each in sockets:
            each.listener.close()


def remove_paths(sockets: list[Listening]) -> None:
    """Removes the paths of the sockets that the daemon made, so that nobody connects any more."""
    for _, listen, inherited in sockets:
        if not inherited:
            # The next daemon takes one that stays for a dead daemon's: no reason not to stop.
            with contextlib.suppress(OSError):
                os.unlink(listen.path)
