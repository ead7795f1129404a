"""The daemon's socket as a path: abstract, mounted, replaced; and what systemd may pass instead."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from logengine import Client
from logengine.daemon import sockets
from logengine.daemon.config_sections import Config, ListenConfig
from tests.daemon import PATIENCE_S, Daemon, eventually

# What systemd passes is descriptor 3.
_AS_SYSTEMD = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
    "os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1';"
    "os.execv(sys.executable, [sys.executable, '-m', 'logengine', 'run', *sys.argv[2:]])"
)


def run_with(passed: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _AS_SYSTEMD, str(passed), *arguments],
        pass_fds=[passed],
        stderr=subprocess.PIPE,
        text=True,
    )


def error_of(process: subprocess.Popen[str]) -> str:
    """The one line of a daemon that could not start."""
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    (line,) = [line for line in said.splitlines() if not line.startswith("{")]
    assert line.startswith("logengine: ")
    return line


@pytest.fixture
def name(root: Path) -> str:
    """An abstract name that nobody else has."""
    return f"@logengine-test/{root.name}"


def test_an_abstract_socket_of_systemd_is_served(root: Path, name: str) -> None:
    daemon = Daemon(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name[1:])
        listener.listen()
        process = run_with(listener.fileno(), "--data", str(daemon.data), "--socket", name)
        try:
            daemon.cli("send", "--socket", name, "-s", "app", stdin=b"one\n")
            daemon.cli("send", "-s", "app", "--resume", "r", stdin=b"two\n", LOGENGINE_SOCKET=name)
            daemon.cli("exec", "--socket", name, "-s", "app", "--", "true")
            with Client("app", socket=name) as client:
                client.send({"message": "three"})
            daemon.cli("status", "--socket", name)
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
    messages = [value.get("message") for value in daemon.values("app")]
    assert [each for each in messages if each] == ["one", "two", "three"]
    assert "socket_gone" not in said


def test_a_client_of_an_abstract_socket_without_a_daemon_says_so(root: Path, name: str) -> None:
    done = Daemon(root).cli("status", "--socket", name, status=1)
    assert name.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_daemon_binds_no_abstract_socket_itself(root: Path, name: str) -> None:
    done = Daemon(root).cli("run", "--data", str(root / "data"), "--socket", name, status=1)
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith(f"logengine: systemd passed no socket {name}; ")
    assert f"ListenStream={name}" in last


def test_an_abstract_socket_that_no_listener_names_is_refused(root: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name[1:])
        listener.listen()
        arguments = ("--data", str(root / "data"), "--socket", str(root / "socket"))
        line = error_of(run_with(listener.fileno(), *arguments))
    assert f"systemd passed a socket at {name}, which no [[listen]] or [[network]] names" in line


def test_a_socket_of_the_network_that_nothing_names_is_refused(root: Path) -> None:
    with socket.socket(socket.AF_INET) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        line = error_of(run_with(listener.fileno(), "--data", str(root / "data")))
    assert f"at 127.0.0.1:{port} (TCP), which no [[listen]] or [[network]] names" in line


def test_a_socket_of_another_family_is_refused(root: Path) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as listener:
        line = error_of(run_with(listener.fileno(), "--data", str(root / "data")))
    assert "expected a path, @NAME, or an address with a port" in line


def test_what_systemd_passes_and_is_no_socket_is_refused(root: Path) -> None:
    os.mkfifo(root / "fifo")
    descriptor = os.open(root / "fifo", os.O_RDWR)
    try:
        line = error_of(run_with(descriptor, "--data", str(root / "data")))
    finally:
        os.close(descriptor)
    assert "systemd passed descriptor 3, which is not a socket" in line


def can_mount() -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
        == 0
    )


@contextlib.contextmanager
def mounted(what: Path, where: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(what), str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def events_of(daemon: Daemon, event: str) -> Sequence[str]:
    return [str(entry) for entry in daemon.log() if entry["event"] == event]


@pytest.mark.skipif(not can_mount(), reason="needs to mount")
def test_a_socket_that_is_a_mount_point_is_served_and_left_behind(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        daemon.start()
        with mounted(daemon.socket, daemon.socket):
            daemon.cli("send", stdin=b"one\n")
            assert daemon.stop() == 0
            assert daemon.values() == [{"message": "one"}]
            (left,) = events_of(daemon, "socket_not_removed")
            assert "busy" in left
            done = daemon.cli(
                *("run", "--data", str(root / "data"), "--socket", str(daemon.socket)), status=1
            )
            last = done.stderr.decode().splitlines()[-1]
            assert "it is a mount point; remove or unmount it" in last
        daemon.start()
        daemon.cli("send", stdin=b"two\n")


@pytest.mark.skipif(not can_mount(), reason="needs to mount")
def test_another_socket_mounted_on_it_is_reported_and_left_alone(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon), socket.socket(socket.AF_UNIX) as other:
        other.bind(str(root / "other"))
        other.listen()
        daemon.start()
        with mounted(root / "other", daemon.socket):
            eventually(lambda: events_of(daemon, "socket_gone"), "the report")
        eventually(daemon.listens, "the daemon's own socket")
        daemon.cli("send", stdin=b"one\n")
        assert daemon.stop() == 0
        assert len(events_of(daemon, "socket_gone")) == 1
        assert not daemon.socket.exists()
        assert (root / "other").exists()


def test_the_socket_of_the_next_daemon_is_left_alone_even_with_the_same_inode(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "socket"
    config = Config(data=str(root / "data"), listen=(ListenConfig(path=str(path)),))
    monkeypatch.setattr(sockets, "_identity", lambda path: (1, 1) if path.exists() else None)
    with sockets.listening(config, {}) as (stopping,):
        sockets.remove_paths([stopping])
        assert not path.exists()
        stopping.listener.close()
        with socket.socket(socket.AF_UNIX) as following:
            following.bind(str(path))
            sockets.remove_paths([stopping])
            assert path.exists()
    assert path.exists()


def test_a_stopping_daemon_leaves_the_socket_of_the_next_one(root: Path) -> None:
    stopping = Daemon(root)
    following = Daemon(root, data=root / "other")
    with contextlib.closing(stopping), contextlib.closing(following):
        stopping.start()
        # A producer that may still send: the daemon has not stopped before it is done with this.
        producer = stopping.connect()
        producer.hello(stream="web", producer="p")
        assert stopping.process is not None
        stopping.process.terminate()
        eventually(lambda: not stopping.socket.exists(), "the path to be free")
        following.start()
        assert stopping.process.wait(PATIENCE_S) == 0
        assert following.listens()
        following.cli("send", stdin=b"one\n")
        assert following.values() == [{"message": "one"}]
