"""Who is at the other end of a Unix socket, as the kernel tells."""

import re
import socket
import struct

from logengine.format.record import Peer

_UCRED = struct.Struct("3i")  # unix(7): pid, uid, gid
_UNIT = re.compile(r"/([^/]+\.(?:service|scope|socket|mount|swap))(?=/|$)", re.MULTILINE)


def peer_of(connection: socket.socket) -> Peer:
    """The process that called connect(2).

    Its name and unit come from /proc, and are None where it has exited meanwhile or its
    entry is hidden.
    """
    pid, uid, gid = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
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
