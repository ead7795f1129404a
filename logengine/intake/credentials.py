"""Identifies the process at the other end of a Unix socket, as the kernel reports it.

A sender may have exited before it is looked up, and its pid may belong to another process by then.
A pidfd of the process that connected shows that (`SO_PEERPIDFD`, since Linux 6.5).
"""

import errno
import os
import re
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from logengine.format.record import Peer

_UCRED = struct.Struct("3i")  # unix(7): pid, uid, gid
# No larger, so that the kernel closes descriptors that a sender passes along.
ANCILLARY_BYTES = socket.CMSG_SPACE(_UCRED.size)
OVERFLOW_UID = 65534  # the uid that the kernel reports if it cannot tell the user
_SO_PEERPIDFD = 77  # socket(7); `socket` has no name for it
_PIDFD = struct.Struct("i")
_PID = re.compile(r"^Pid:\s*(-?\d+)$", re.MULTILINE)
_UIDS = re.compile(r"^Uid:\s*([\d\s]+)$", re.MULTILINE)
_UNIT = re.compile(r"/([^/]+\.(?:service|scope|socket|mount|swap))(?=/|$)", re.MULTILINE)


class Credentials(NamedTuple):
    """A process, its user and its group. `pid` is 0 if the kernel cannot tell it."""

    pid: int
    uid: int
    gid: int


_UNKNOWN = Credentials(0, OVERFLOW_UID, OVERFLOW_UID)


def uid_of(connection: socket.socket) -> int:
    """Returns the user of the process that called connect(2)."""
    return _credentials_of(connection).uid


def peer_of(connection: socket.socket) -> Peer:
    """Returns the process that called connect(2)."""
    peer = peer_of_process(_credentials_of(connection))
    # Check after reading /proc: what was read there may be of another process.
    if peer.pid is not None and not _is_still(connection, peer.pid):
        peer = Peer(pid=peer.pid, uid=peer.uid, gid=peer.gid)
    return peer


def _credentials_of(connection: socket.socket) -> Credentials:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(packed))


def credentials_in(ancillary: Iterable[tuple[int, int, bytes]]) -> Credentials:
    """Returns the process that sent a datagram, from the ancillary data of recvmsg(2).

    Only root can send another process's credentials. Those of a datagram that was sent before
    SO_PASSCRED was set are unknown.
    """
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return Credentials(*_UCRED.unpack(packed[: _UCRED.size]))
    return _UNKNOWN


def peer_of_process(credentials: Credentials) -> Peer:
    """Returns the peer with these credentials.

    Its name and unit come from /proc. They are None if the process has exited, or if its entry in
    /proc is hidden or belongs to another user. If another process of the same user has its pid by
    now, the name and unit may be those of that process.
    """
    pid, uid, gid = credentials
    if pid <= 0:  # from another pid namespace
        return Peer(uid=uid, gid=gid)
    comm, cgroup = _read(f"/proc/{pid}/comm"), _read(f"/proc/{pid}/cgroup")
    if not _has_user(_read(f"/proc/{pid}/status") or "", uid):
        comm = cgroup = None
    return Peer(
        pid=pid,
        uid=uid,
        gid=gid,
        comm=comm.removesuffix("\n") if comm is not None else None,
        unit=unit_of_cgroup(cgroup or ""),
    )


def _is_still(connection: socket.socket, pid: int) -> bool:
    """Whether `pid` still belongs to the process that connected; True if the kernel cannot tell."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _PIDFD.size)
    except OSError as error:
        return error.errno == errno.ENOPROTOOPT  # an older kernel
    (process,) = _PIDFD.unpack(found)
    try:
        return _pid_of(_read(f"/proc/self/fdinfo/{process}") or "") == pid
    finally:
        os.close(process)


def _pid_of(fdinfo: str) -> int | None:
    """Returns the pid in the text of a pidfd's /proc/self/fdinfo/FD; -1 once it has exited."""
    found = _PID.search(fdinfo)
    return int(found[1]) if found else None


def _has_user(status: str, uid: int) -> bool:
    """Whether the text of a /proc/PID/status has this uid: real, effective, or saved."""
    found = _UIDS.search(status)
    return found is not None and str(uid) in found[1].split()


def unit_of_cgroup(cgroup: str) -> str | None:
    """Returns the innermost systemd unit in the text of a /proc/PID/cgroup, if there is one."""
    units = _UNIT.findall(cgroup)
    return units[-1] if units else None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError:
        return None
