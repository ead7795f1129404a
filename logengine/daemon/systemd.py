"""The interface to systemd: readiness messages, and sockets that outlive a restart.

Sources: sd_notify(3), sd_listen_fds(3).
"""

import os
import socket
from collections.abc import Mapping

_FIRST_PASSED_DESCRIPTOR = 3


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Sends `state`, such as `READY=1`, to the service manager, if one listens."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.connect(address)
            notifier.sendall(state.encode())
        except OSError:
            return  # best effort: a failed notification must not stop the daemon


def passed_listeners(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Returns the listening sockets that the service manager passed to this process."""
    if environ.get("LISTEN_PID") != str(pid):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    listeners = []
    for descriptor in range(_FIRST_PASSED_DESCRIPTOR, _FIRST_PASSED_DESCRIPTOR + count):
        os.set_inheritable(descriptor, False)
        listeners.append(socket.socket(fileno=descriptor))
    return listeners
