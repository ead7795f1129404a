"""`send` and `import` while no daemon answers: they say so, and give up when they are told to."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S, Daemon

COMMANDS = {
    "send": ["send", "-m", "hello"],
    "import": ["import", "FILE", "-s", "default"],
    "resumed": ["send", "FILE", "--resume", "name"],
}


@pytest.fixture(params=COMMANDS)
def arguments(request: pytest.FixtureRequest, root: Path) -> list[str]:
    path = root / "lines"
    path.write_text("hello\n")
    return [str(path) if each == "FILE" else each for each in COMMANDS[request.param]]


@pytest.fixture
def stopped(daemon: Daemon) -> Iterator[Daemon]:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    yield daemon
    daemon.process.send_signal(signal.SIGCONT)


def started(daemon: Daemon, arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "logengine", *arguments, "--socket", str(daemon.socket)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"LOGENGINE_STATE": str(daemon.socket.parent / "state")},
    )


def test_a_command_says_which_daemon_it_waits_for_and_goes_on_when_it_comes(
    root: Path, arguments: list[str]
) -> None:
    daemon = Daemon(root)
    process = started(daemon, arguments)
    try:
        assert process.stderr is not None
        told = process.stderr.readline().decode()
        assert told.startswith("logengine: waiting for the daemon: ")
        assert str(daemon.socket) in told
        daemon.start()
        assert process.wait(PATIENCE_S) == 0
        assert b"waiting" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
        daemon.close()
    assert daemon.values() == [{"message": "hello"}]


def test_a_daemon_that_hangs_is_named_and_given_up(stopped: Daemon, arguments: list[str]) -> None:
    process = started(stopped, [*arguments, "--timeout", "2s"])
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    waiting, end = told.decode().splitlines()
    assert waiting.startswith("logengine: waiting for the daemon, for at most 2s: ")
    for line in (waiting, end):
        assert f"the daemon at {stopped.socket} does not answer" in line


def test_a_daemon_that_hangs_after_its_welcome_is_given_up(root: Path) -> None:
    """It is played, because a real one may acknowledge before it is stopped."""
    daemon = Daemon(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        process = started(daemon, ["send", "-m", "hello", "--timeout", "1s"])
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            assert b"_hello" in connection.recv(10_000)
            connection.sendall(b'{"welcome":1,"next":1,"max_record":1000,"known":0}\n')
            _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"the daemon at {daemon.socket} acknowledges nothing, for" in told.decode()
