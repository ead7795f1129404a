"""The interface to systemd: readiness messages, and sockets that outlive a restart.

Sources: sd_notify(3), sd_listen_fds(3).
"""

import os
import socket
from collections.abc import Mapping

from logengine.errors import ConfigError
from logengine.socket_address import address_of

_FIRST_PASSED_DESCRIPTOR = 3


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Sends `state`, such as `READY=1`, to the service manager, if one listens."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.connect(address_of(address))
            notifier.sendall(state.encode())
        except OSError:
            return  # best effort: a failed notification must not stop the daemon


def passed_listeners(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Returns the listening sockets that the service manager passed to this process.

    Raises `ConfigError` if it passed anything else.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return []
    passed = environ.get("LISTEN_FDS", "0")
    if not passed.isdecimal():
        raise ConfigError(f"$LISTEN_FDS is {passed!r}; expected a number, as systemd sets it")
    return [_listener(_FIRST_PASSED_DESCRIPTOR + index) for index in range(int(passed))]


def _listener(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(
            f"systemd passed descriptor {descriptor}, which is not a socket ({error.strerror}); "
            "the socket unit may have only ListenStream and ListenDatagram"
        ) from None
    if listener.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise ConfigError(
            f"systemd passed a socket at {listener.getsockname()}; expected a path, @NAME, or an "
            "address with a port in ListenStream or ListenDatagram of the socket unit"
        )
    return listener
