"""Who is at the other end of a socket, where that process may be gone by now."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from logengine.intake import credentials
from logengine.intake.credentials import ANCILLARY_BYTES, ask_for_senders, peer_of, sender_of
from logengine.peer_credentials import credentials_of_peer

_real_read = credentials._read
SOMEBODY = 4711


@pytest.fixture
def gone(root: Path) -> Iterator[socket.socket]:
    """A connection of a child that has ended since."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s"))
        listener.listen()
        child = os.fork()
        if not child:
            socket.socket(socket.AF_UNIX).connect(str(root / "s"))
            os._exit(0)
        os.waitpid(child, 0)
        connection, _ = listener.accept()
        with connection:
            yield connection


def another(uids: str = "0\t0\t0", started_ticks: int = 0) -> Callable[[str], bytes | None]:
    """What /proc says where the number of a process is another's by now."""

    def read(path: str) -> bytes | None:
        match path.rsplit("/", 1)[-1]:
            case "comm":
                return b"sshd\n"
            case "cgroup":
                return b"0::/system.slice/ssh.service\n"
            case "status":
                return f"Name:\tsshd\nUid:\t{uids}\t0\nGid:\t0\t0\t0\t0\n".encode()
            case "stat":
                fields = " ".join(["1"] * 18)
                return f"{SOMEBODY} (a) 1 (b) S {fields} {started_ticks} 2 3\n".encode()
            case _:
                return _real_read(path)

    return read


class OfOlderKernel:
    """A connection as Linux before 6.5 has it."""

    def __init__(self, pid: int, uid: int) -> None:
        self._pid, self._uid = pid, uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if option == socket.SO_PEERCRED:
            return struct.pack("iII", self._pid, self._uid, 0)
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))


def test_a_process_that_is_there_is_named() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.comm == Path("/proc/self/comm").read_text().strip()


def test_no_descriptor_of_the_process_is_kept() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        peer_of(ours)
        assert len(os.listdir("/proc/self/fd")) == before


def test_another_process_of_the_same_number_is_not_named(gone: socket.socket) -> None:
    with patch.object(credentials, "_read", another(uids="\t".join([str(os.geteuid())] * 3))):
        peer = peer_of(gone)
    assert (peer.uid, peer.comm, peer.unit) == (os.geteuid(), None, None)


def test_a_process_is_not_named_where_no_descriptor_is_left_to_prove_it() -> None:
    class Full(OfOlderKernel):
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            if option == socket.SO_PEERCRED:
                return super().getsockopt(level, option, size)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    connection: socket.socket = Full(SOMEBODY, 0)  # type: ignore[assignment]
    with patch.object(credentials, "_read", another()):
        peer = peer_of(connection)
    assert (peer.pid, peer.comm, peer.unit) == (SOMEBODY, None, None)


@pytest.mark.parametrize(
    ("uid", "uids", "comm"),
    [
        (0, "0\t0\t0", "sshd"),
        (65534, "0\t0\t0", None),
        (65534, "0\t65534\t0", None),  # of root, which acts for the user at the moment
        (65534, "65534\t0\t0", None),  # started by the user, with the rights of root
        (4294967290, "4294967290\t4294967290\t4294967290", "sshd"),
    ],
)
def test_an_older_kernel_tells_another_user_apart(uid: int, uids: str, comm: str | None) -> None:
    connection: socket.socket = OfOlderKernel(SOMEBODY, uid)  # type: ignore[assignment]
    with patch.object(credentials, "_read", another(uids)):
        peer = peer_of(connection)
    assert (peer.pid, peer.uid, peer.comm) == (SOMEBODY, uid, comm)


def test_a_process_of_another_namespace_has_no_number() -> None:
    connection: socket.socket = OfOlderKernel(0, 1000)  # type: ignore[assignment]
    with patch.object(credentials, "_read", another("1000\t1000\t1000")):
        peer = peer_of(connection)
    assert (peer.pid, peer.uid, peer.comm) == (None, 1000, None)


@pytest.fixture
def received() -> list[tuple[int, int, bytes]]:
    """The ancillary data of a datagram that this process has just sent to itself."""
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiving, sending:
        ask_for_senders(receiving)
        sending.send(b"{}")
        return receiving.recvmsg(16, ANCILLARY_BYTES)[1]


def test_the_sender_of_a_datagram_is_named(received: list[tuple[int, int, bytes]]) -> None:
    sender = sender_of(received)
    assert (sender.pid, sender.uid) == (os.getpid(), os.geteuid())
    assert sender.comm == Path("/proc/self/comm").read_text().strip()


def test_a_process_that_started_after_a_datagram_was_sent_is_not_its_sender(
    received: list[tuple[int, int, bytes]],
) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    now_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * ticks)
    for started_ticks, comm in ((now_ticks - 60 * ticks, "sshd"), (now_ticks + 60 * ticks, None)):
        with patch.object(credentials, "_read", another(started_ticks=started_ticks)):
            sender = sender_of(received)
        assert (sender.pid, sender.comm, sender.unit is None) == (os.getpid(), comm, comm is None)


def test_a_datagram_of_unknown_or_future_time_proves_nothing(
    received: list[tuple[int, int, bytes]],
) -> None:
    untimed = [each for each in received if each[1] == socket.SCM_CREDENTIALS]
    assert sender_of(untimed).comm is None
    with patch.object(time, "time_ns", return_value=1):  # the clock was set back
        assert sender_of(received).comm is None


def test_there_is_no_room_for_descriptors_that_are_sent_along() -> None:
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiving, sending:
        ask_for_senders(receiving)
        before = len(os.listdir("/proc/self/fd"))
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", 0, 0))
        sending.sendmsg([b"{}"], [rights])
        _, ancillary, flags, _ = receiving.recvmsg(16, ANCILLARY_BYTES)
        assert len(os.listdir("/proc/self/fd")) == before
    assert flags & socket.MSG_CTRUNC
    assert sender_of(ancillary).pid == os.getpid()


def test_both_ends_of_a_connection_have_credentials() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert credentials_of_peer(ours) == (os.getpid(), os.geteuid(), os.getegid())
