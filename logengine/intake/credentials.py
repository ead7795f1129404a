"""Who is at the other end of a Unix socket, as the kernel tells."""

import re
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from logengine.format.record import Peer

_UCRED = struct.Struct("3i")  # unix(7): pid, uid, gid
# No more, so that the kernel closes descriptors that somebody sends along.
ANCILLARY_BYTES = socket.CMSG_SPACE(_UCRED.size)
OVERFLOW_UID = 65534  # whom the kernel names where it cannot tell the user
_UNIT = re.compile(r"/([^/]+\.(?:service|scope|socket|mount|swap))(?=/|$)", re.MULTILINE)


class Credentials(NamedTuple):
    """A process, its user and its group; `pid` is 0 where the kernel cannot tell it."""

    pid: int
    uid: int
    gid: int


_UNKNOWN = Credentials(0, OVERFLOW_UID, OVERFLOW_UID)


def peer_of(connection: socket.socket) -> Peer:
    """The process that called connect(2)."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return peer_of_process(Credentials(*_UCRED.unpack(packed)))


def credentials_in(ancillary: Iterable[tuple[int, int, bytes]]) -> Credentials:
    """The process that sent a datagram, from what recvmsg(2) gave beside it.

    Only root can send another's. Unknown of what was sent before SO_PASSCRED was set.
    """
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return Credentials(*_UCRED.unpack(packed[: _UCRED.size]))
    return _UNKNOWN


def peer_of_process(credentials: Credentials) -> Peer:
    """The peer with these credentials.

    Its name and unit come from /proc, and are None where it has exited meanwhile or its
    entry is hidden.
    """
    pid, uid, gid = credentials
    if pid <= 0:  # from another pid namespace
        return Peer(uid=uid, gid=gid)
    comm = _read(f"/proc/{pid}/comm")
    return Peer(
        pid=pid,
        uid=uid,
        gid=gid,
        comm=comm.removesuffix("\n") if comm is not None else None,
        unit=unit_of_cgroup(_read(f"/proc/{pid}/cgroup") or ""),
    )


def unit_of_cgroup(cgroup: str) -> str | None:
    """The innermost systemd unit in the text of a /proc/PID/cgroup, if there is one."""
    units = _UNIT.findall(cgroup)
    return units[-1] if units else None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError:
        return None
