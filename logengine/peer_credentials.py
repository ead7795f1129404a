"""The process, user and group at the other end of a Unix socket, as the kernel reports them.

Source: unix(7) for SO_PEERCRED and SCM_CREDENTIALS.
"""

import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("iII")
UCRED_BYTES = _UCRED.size


class Credentials(NamedTuple):
    """A process, its user and its group. `pid` is 0 if the kernel cannot tell it."""

    pid: int
    uid: int
    gid: int


def credentials_of_peer(connection: socket.socket) -> Credentials:
    """Returns who is at the other end.

    For an accepted connection, that is the process that called connect(2), as it was then; for one
    of our own, the process that called listen(2). Either may have started another program since,
    or handed the socket on.
    """
    return unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED_BYTES))


def unpack(ucred: bytes) -> Credentials:
    """Returns the content of a `struct ucred`, which may be followed by padding."""
    return Credentials(*_UCRED.unpack(ucred[:UCRED_BYTES]))
