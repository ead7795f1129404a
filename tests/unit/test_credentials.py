"""Who is at the other end of a socket, where that process may be gone by now."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from logengine.intake import credentials
from logengine.intake.credentials import peer_of

_real_read = credentials._read


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


def another(path: str) -> str | None:
    """What /proc says where the number of a process is another's by now."""
    if path.endswith("/comm"):
        return "sshd\n"
    if path.endswith("/cgroup"):
        return "0::/system.slice/ssh.service\n"
    if path.endswith("/status"):
        return "Name:\tsshd\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"
    return _real_read(path)


class OfOlderKernel:
    """A connection as Linux before 6.5 has it."""

    def __init__(self, pid: int, uid: int) -> None:
        self._pid, self._uid = pid, uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if option == socket.SO_PEERCRED:
            return struct.pack("3i", self._pid, self._uid, 0)
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


def test_another_process_of_the_same_number_is_not_named(
    gone: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_read", another)
    peer = peer_of(gone)
    assert (peer.uid, peer.comm, peer.unit) == (os.geteuid(), None, None)


@pytest.mark.parametrize(("uid", "comm"), [(0, "sshd"), (65534, None)])
def test_an_older_kernel_tells_another_user_apart(
    monkeypatch: pytest.MonkeyPatch, uid: int, comm: str | None
) -> None:
    monkeypatch.setattr(credentials, "_read", another)
    connection: socket.socket = OfOlderKernel(4711, uid)  # type: ignore[assignment]
    peer = peer_of(connection)
    assert (peer.pid, peer.uid, peer.comm) == (4711, uid, comm)
