"""Identifies the process that sends over a Unix socket, as far as the kernel proves it.

The kernel reports the numbers of a sender: pid, uid, gid. What belongs to a pid has to be read from
/proc, at a time when the sender may have exited and its pid may belong to another process. So the
name and the units of a process are used only if it is shown to be the sender:

- A connection has a pidfd of the process that connected (`SO_PEERPIDFD`, since Linux 6.5). As long
  as that process is there, nobody else has its pid.
- The kernel notes when a datagram was sent. A process that has the pid now and started earlier had
  it at that time, too.
- An older kernel proves neither for a connection. The process must then have the uid of the sender
  and no other: a user may control all of its own processes anyway (ptrace(2)).

A sender chooses its own name, and may start another program after it has connected.
"""

import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterable

from logengine.format.record import Peer
from logengine.intake.cgroup import units_of_cgroup
from logengine.peer_credentials import UCRED_BYTES, Credentials, credentials_of_peer, unpack

OVERFLOW_UID = 65534  # the uid that the kernel reports if it cannot tell the user
# socket(7); `socket` has no names for these
_SO_PEERPIDFD = 77
_SO_TIMESTAMPNS = 35
# Looked up for every datagram.
_SOL_SOCKET, _SCM_CREDENTIALS = int(socket.SOL_SOCKET), int(socket.SCM_CREDENTIALS)
_PIDFD = struct.Struct("i")
_TIMESPEC = struct.Struct("ll")
# No larger, so that the kernel closes descriptors that a sender passes along.
ANCILLARY_BYTES = socket.CMSG_SPACE(UCRED_BYTES) + socket.CMSG_SPACE(_TIMESPEC.size)
_PID = re.compile(rb"^Pid:\s*(-?\d+)$", re.MULTILINE)
_UIDS = re.compile(rb"^Uid:\s*(\d+)\s+(\d+)\s+(\d+)\s", re.MULTILINE)  # real, effective, saved
_START_FIELD = 22 - 3  # of /proc/PID/stat, counted after the name, which is field 2
_S_NS = 10**9
_TICK_NS = _S_NS // os.sysconf("SC_CLK_TCK")
_UNKNOWN = Credentials(0, OVERFLOW_UID, OVERFLOW_UID)

Ancillary = Iterable[tuple[int, int, bytes]]


def uid_of(connection: socket.socket) -> int:
    """Returns the user of the process that called connect(2)."""
    return credentials_of_peer(connection).uid


def peer_of(connection: socket.socket) -> Peer:
    """Returns the process that called connect(2)."""
    credentials = credentials_of_peer(connection)
    found = _described(credentials)
    # Check after reading /proc: what was read there may be of another process.
    return found if _is_still(connection, credentials) else _numbers(credentials)


def ask_for_senders(receiving: socket.socket) -> None:
    """Lets recvmsg(2) return with each datagram who sent it, and when.

    Call it before the socket has a name, because the kernel does not note this for a datagram that
    arrived earlier.
    """
    receiving.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    receiving.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def credentials_in(ancillary: Ancillary) -> Credentials:
    """Returns the process that sent a datagram, from the ancillary data of recvmsg(2).

    Only root can send another process's credentials. Those of a datagram that was sent before
    `ask_for_senders` are unknown.
    """
    packed = packed_credentials_in(ancillary)
    return unpack(packed) if packed else _UNKNOWN


def packed_credentials_in(ancillary: Ancillary) -> bytes:
    """Returns the same as the kernel wrote it; empty if it is unknown."""
    for level, kind, packed in ancillary:
        if kind == _SCM_CREDENTIALS and level == _SOL_SOCKET:
            return packed
    return b""


def sender_of(ancillary: Ancillary) -> Peer:
    """Returns the process that sent a datagram, from the ancillary data of recvmsg(2)."""
    credentials = credentials_in(ancillary)
    sent_at_ns = next(
        (
            seconds * _S_NS + nanoseconds
            for level, kind, packed in ancillary
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
            for seconds, nanoseconds in [_TIMESPEC.unpack(packed)]
        ),
        None,
    )
    found = _described(credentials)
    if sent_at_ns is not None and _started_by(credentials.pid, sent_at_ns):
        return found
    return _numbers(credentials)


def _numbers(credentials: Credentials) -> Peer:
    pid, uid, gid = credentials
    return Peer(pid=pid if pid > 0 else None, uid=uid, gid=gid)  # 0: from another pid namespace


def _described(credentials: Credentials) -> Peer:
    """Returns the peer with the name and units of the process that has its pid now.

    They are None if there is no such process, or if its entry in /proc is hidden.
    """
    pid, uid, gid = credentials
    if pid <= 0:
        return _numbers(credentials)
    comm, cgroup = _read(f"/proc/{pid}/comm"), _read(f"/proc/{pid}/cgroup")
    units = units_of_cgroup(cgroup or b"")
    return Peer(
        pid=pid,
        uid=uid,
        gid=gid,
        comm=None if comm is None else comm.removesuffix(b"\n").decode("utf-8", "backslashreplace"),
        unit=units.unit,
        user_unit=units.user_unit,
    )


def _is_still(connection: socket.socket, credentials: Credentials) -> bool:
    """Whether the pid still belongs to the process that connected."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _PIDFD.size)
    except OSError as error:
        # Any other failure: the process has exited, or there is no descriptor left.
        return error.errno == errno.ENOPROTOOPT and _has_only_user(credentials)
    (process,) = _PIDFD.unpack(found)
    try:
        found_pid = _PID.search(_read(f"/proc/self/fdinfo/{process}") or b"")
    finally:
        os.close(process)
    # -1 once the process has exited and its parent knows
    return found_pid is not None and int(found_pid[1]) == credentials.pid


def _has_only_user(credentials: Credentials) -> bool:
    """Whether the process has this uid alone: as its real, its effective and its saved one."""
    uids = _UIDS.search(_read(f"/proc/{credentials.pid}/status") or b"")
    return uids is not None and {int(uid) for uid in uids.groups()} == {credentials.uid}


def _started_by(pid: int, sent_at_ns: int) -> bool:
    """Whether the process that has this pid now started before `sent_at_ns`, a wall-clock time."""
    # A name may contain spaces and parentheses.
    fields = (_read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
    if len(fields) <= _START_FIELD:
        return False
    age_ns = time.time_ns() - sent_at_ns
    sent_since_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - age_ns
    # A negative age: the clock was set back. Start times are rounded down to a tick; a pid comes
    # around much later.
    return age_ns >= 0 and int(fields[_START_FIELD]) * _TICK_NS <= sent_since_boot_ns


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
