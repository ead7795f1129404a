"""Commands whose standard input, output or error was closed by the caller, as by `>&-`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from logengine.cli import _COMMANDS
from tests.daemon import PATIENCE_S, Daemon, eventually

NEEDS_NOTHING = {"run", "send", "exec", "import", "export"}


def shell(
    daemon: Daemon, command: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs `logengine COMMAND` by a shell, which closes what the command says."""
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m logengine {command}"],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ
        | {"LOGENGINE_DATA": str(daemon.data), "LOGENGINE_SOCKET": str(daemon.socket)},
    )


def standard_descriptors(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]


def test_a_daemon_without_descriptors_gives_their_numbers_to_none_of_its_files(root: Path) -> None:
    daemon = Daemon(root)
    process = subprocess.Popen(
        [
            *("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "logengine"),
            *("run", "--data", str(daemon.data), "--socket", str(daemon.socket)),
        ]
    )
    try:
        daemon.process = process
        eventually(lambda: daemon.socket.exists() and daemon.listens(), "the daemon to listen")
        assert standard_descriptors(process.pid) == [os.devnull] * 3
        daemon.cli("send", stdin=b"hello\n")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert daemon.values() == [{"message": "hello"}]


@pytest.mark.parametrize("command", [*(set(_COMMANDS) - NEEDS_NOTHING), "cat --help"])
def test_a_command_that_prints_fails_at_once_without_standard_output(
    daemon: Daemon, command: str
) -> None:
    done = shell(daemon, f"{command} >&-")
    assert done.returncode == 1
    assert done.stderr.startswith(b"logengine: standard output is closed, and this command needs")
    assert done.stderr.count(b"\n") == 1


def test_sending_needs_an_input_and_nothing_else(daemon: Daemon, root: Path) -> None:
    assert shell(daemon, "send >&- 2>&-", b"one\n").returncode == 0
    (root / "file").write_text("two\n")
    assert shell(daemon, f"send {root / 'file'} <&- >&- 2>&-").returncode == 0
    assert shell(daemon, "send -m three <&- >&- 2>&-").returncode == 0
    for command in ("send <&-", "send - <&-", "import -s app --format text - <&-"):
        done = shell(daemon, command)
        assert done.returncode == 1
        assert done.stderr.startswith(b"logengine: standard input is closed, and this command")
        assert done.stderr.count(b"\n") == 1
    assert daemon.values() == [{"message": each} for each in ("one", "two", "three")]


def test_a_command_below_exec_has_the_input_that_was_closed(daemon: Daemon) -> None:
    done = shell(daemon, "exec -- sh -c 'cat 2>&1 || echo could not read' <&- >&- 2>&-")
    assert done.returncode == 0
    assert {"fd": 1, "message": "could not read"} in daemon.values()


def test_an_export_to_a_file_needs_no_standard_output(daemon: Daemon, root: Path) -> None:
    daemon.cli("send", stdin=b"hello\n")
    assert shell(daemon, f"export -o {root / 'file'} <&- >&- 2>&-").returncode == 0
    assert (root / "file").read_bytes().count(b"\n") == 1
    assert b"hello" in (root / "file").read_bytes()


def test_records_are_printed_without_the_other_descriptors(daemon: Daemon) -> None:
    daemon.cli("send", stdin=b"hello\n")
    done = shell(daemon, "cat <&- 2>&-")
    assert done.returncode == 0
    assert b"hello" in done.stdout


def test_output_that_finds_no_space_fails_in_one_line(daemon: Daemon) -> None:
    daemon.cli("send", stdin=b"hello\n")
    done = shell(daemon, "cat >/dev/full")
    assert (done.returncode, done.stderr) == (1, b"logengine: No space left on device\n")
