"""What the daemon does with each signal."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from logengine.daemon import signals
from tests.daemon import PATIENCE_S, PROGRAM, Daemon, eventually


class DaemonOnTerminal(Daemon):
    """A daemon in the foreground of a terminal of its own, `master`."""

    def __init__(self, root: Path, *, program: tuple[str, ...]) -> None:
        super().__init__(root)
        self._started_by = program
        self.master, self._terminal = pty.openpty()

    def start(self) -> "DaemonOnTerminal":
        terminal = os.ttyname(self._terminal)
        # A session leader without a terminal gets the first one that it opens.
        script = (
            "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execvp(sys.argv[2], sys.argv[2:])"
        )
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", script, terminal),
                    *(*self._started_by, sys.executable, *PROGRAM, "run"),
                    *("--config", str(self.config), "--data", str(self.data)),
                    *("--socket", str(self.socket)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        os.close(self._terminal)
        eventually(self.listens, "the daemon to listen")
        return self

    def close_terminal(self) -> None:
        os.close(self.master)


@contextlib.contextmanager
def on_terminal(root: Path, *program: str) -> Iterator[DaemonOnTerminal]:
    with contextlib.closing(DaemonOnTerminal(root, program=program)) as daemon:
        daemon.start()
        wait_until_served(daemon)
        yield daemon


def wait_until_served(daemon: Daemon) -> None:
    """A signal before that may be ignored without a line."""
    eventually(lambda: "listening" in daemon.events(), "the daemon to serve")


def ignored(daemon: Daemon) -> list[str]:
    return [line["signal"] for line in daemon.log() if line["event"] == "signal_ignored"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_what_scripts_send_to_reopen_files_is_ignored_and_logged(
    root: Path, number: signal.Signals
) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        daemon.start()
        wait_until_served(daemon)
        assert daemon.process is not None
        sender = daemon.connect()
        sender.hello(stream="app", producer="p")
        sender.send(b"1\n")
        daemon.process.send_signal(number)
        eventually(lambda: ignored(daemon) == [number.name], "the signal to be logged")
        sender.wait_for_ack(1)
        assert daemon.stop() == 0
        assert len(daemon.values("app")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_commits_a_record_whose_sender_asked_for_no_answer(
    root: Path, number: signal.Signals
) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        daemon.start()
        wait_until_served(daemon)
        assert daemon.process is not None
        with contextlib.closing(daemon.connect()) as sender:
            sender.send(b"1\n")
            daemon.process.send_signal(number)
            assert daemon.process.wait(PATIENCE_S) == 0
        assert len(daemon.values()) == 1


STOPPED_BEFORE_IT_SERVES = """
import os, signal, sys, uvloop
from logengine.__main__ import main

run = uvloop.run

def stopped(serving):
    os.kill(os.getpid(), signal.SIGTERM)
    return run(serving)

uvloop.run = stopped
main()
"""


def test_a_stop_between_the_socket_and_the_first_record_is_a_stop(root: Path) -> None:
    daemon = Daemon(root, program=("-c", STOPPED_BEFORE_IT_SERVES))
    with daemon.log_path.open("ab") as log:
        where = ["--config", daemon.config, "--data", daemon.data, "--socket", daemon.socket]
        done = subprocess.run(
            [sys.executable, *daemon.program, "run", *map(str, where)],
            stderr=log,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 0
    assert daemon.events()[-1] == "stopped"
    assert not daemon.socket.exists()


def test_a_terminal_that_closes_stops_the_daemon_which_commits_first(root: Path) -> None:
    with on_terminal(root) as daemon, contextlib.closing(daemon.connect()) as sender:
        assert daemon.process is not None
        sender.send(b"1\n")
        daemon.close_terminal()
        assert daemon.process.wait(PATIENCE_S) == 0
        (stopping,) = [line for line in daemon.log() if line["event"] == "stopping"]
        assert stopping["signal"] == "SIGHUP"
        assert len(daemon.values()) == 1
        assert not daemon.socket.exists()


async def test_a_terminal_that_closed_during_the_start_stops_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "_has_terminal", lambda: False)
    assert await signals.stop_signals(stops_with_terminal=True) == signal.SIGHUP
    assert not signals.stop_signals(stops_with_terminal=False).done()


async def test_a_hangup_signal_after_the_certificates_were_read_has_them_read_again() -> None:
    read = []

    def reload() -> bool:
        read.append("again")
        return True

    signals.ignore_until_served()
    with signals.early_signals() as received:
        signal.raise_signal(signal.SIGHUP)
        stopping = signals.stop_signals(stops_with_terminal=False, reload=reload, received=received)
    assert read == ["again"]
    assert not stopping.done()


def test_a_hangup_signal_is_ignored_while_the_terminal_is_open(root: Path) -> None:
    with on_terminal(root) as daemon:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: ignored(daemon) == ["SIGHUP"], "the signal to be logged")
        assert daemon.stop() == 0
        daemon.close_terminal()


def test_under_nohup_the_daemon_survives_its_terminal(root: Path) -> None:
    with on_terminal(root, "nohup") as daemon:
        daemon.close_terminal()
        eventually(lambda: ignored(daemon) == ["SIGHUP"], "the signal to be logged")
        assert daemon.stop() == 0


def test_the_help_names_every_signal_that_the_readme_names(daemon: Daemon) -> None:
    told = daemon.cli("run", "--help").stdout.decode()
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        assert name in told
        assert name in readme
