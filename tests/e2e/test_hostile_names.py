"""Names that another user or a sender chose: what is printed of them does nothing to a terminal."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from logengine.errors import (
    AtomicWriteError,
    ConfigError,
    DamagedSegment,
    LogEngineError,
    UnreadableSegment,
)
from tests.daemon import Daemon, eventually

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\u2066\x7f\r\nlogengine: all is well"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def check(printed: bytes) -> str:
    """Fails if a terminal would act on this, or if a name begins a line of its own."""
    text = printed.decode("utf-8", "backslashreplace")
    assert not UNSAFE.search(text), text
    assert "\nlogengine: all is well" not in text
    assert "Traceback" not in text
    assert "\\x1b]0;owned\\x07\\x9b31m" in text
    return text


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "logengine", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
        env={name: value for name, value in os.environ.items() if "LOGENGINE" not in name},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("cat", "--data", HOSTILE),
        ("ls", "--data", HOSTILE),
        ("cat", "--data", ".", HOSTILE),
        ("tail", "--data", ".", HOSTILE),
        ("verify", "--data", ".", HOSTILE),
        ("repair", "--data", ".", HOSTILE),
        ("erase", "--data", ".", HOSTILE, "--grep", "x"),
        ("export", "--data", ".", HOSTILE),
        ("retain", "--data", HOSTILE),
        ("seals", "--data", HOSTILE),
        ("status", "--socket", HOSTILE),
        ("send", "--socket", "socket", "-s", HOSTILE),
        ("send", "--socket", HOSTILE, "--timeout", "0.1", "/dev/null"),
        ("send", "--socket", "socket", "--resume", HOSTILE, "/dev/null"),
        (
            "import",
            "-s",
            "app",
            "--format",
            "text",
            "--socket",
            "socket",
            "--timeout",
            "0",
            HOSTILE,
        ),
        ("exec", "--socket", "socket", "--timeout", "0", "--", HOSTILE),
        ("exec", "--socket", "socket", "-s", HOSTILE, "--", "true"),
        ("keygen", f"{HOSTILE}/key"),
        ("config", "check", HOSTILE),
        ("run", "--config", HOSTILE),
        ("run", "--data", "data", "--socket", f"file/{HOSTILE}"),
        ("run", "--data", f"file/{HOSTILE}", "--socket", "socket"),
        ("ls", f"--{HOSTILE}"),
        ("keygen", "one", HOSTILE),
        (HOSTILE,),
        ("cat", "--since", HOSTILE),
        ("cat", "--after", HOSTILE),
        ("cat", "--where", HOSTILE),
        ("cat", "--format", HOSTILE),
    ],
    ids=lambda arguments: " ".join(arguments).replace(HOSTILE, "…"),
)
def test_an_error_quotes_what_it_was_given_escaped(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(root)
    Path("file").touch()
    done = run(*arguments)
    assert done.returncode != 0
    check(done.stderr + done.stdout)


def test_a_data_directory_is_named_escaped_by_every_command(root: Path) -> None:
    directory = root / HOSTILE
    directory.mkdir()
    daemon = Daemon(root, data=directory / "data")
    try:
        daemon.start()
        daemon.cli("send", "-s", "app", stdin=b"one\ntwo\n")
        assert daemon.stop() == 0
    finally:
        daemon.close()
    (segment,) = (daemon.data / "app").glob("*.ndjson")
    segment.write_bytes(segment.read_bytes()[:-3] + b"\x1b}\n")
    for command in ("verify", "cat", "ls", "seals", "repair app --dry-run", "repair app"):
        done = run(*command.split(), "--data", str(daemon.data))
        printed = done.stdout + done.stderr
        assert not UNSAFE.search(printed.decode("utf-8", "backslashreplace"))
        assert b"\nlogengine: all is well" not in printed
        if command.startswith(("verify", "repair")):
            check(printed)


def test_a_stream_of_a_hostile_name_is_no_stream(daemon: Daemon) -> None:
    (daemon.data / HOSTILE).mkdir()
    daemon.cli("send", stdin=b"hello\n")
    listed = daemon.cli("ls").stdout.decode()
    assert not UNSAFE.search(listed)
    assert len(listed.splitlines()) == 2
    for command in ("cat", "verify", "seals"):
        done = daemon.cli(command)
        assert b"owned" not in done.stdout + done.stderr


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_log_of_the_daemon_escapes_what_others_chose(root: Path, log_format: str) -> None:
    directory = root / HOSTILE
    directory.mkdir()
    daemon = Daemon(root, f'[log]\nformat = "{log_format}"\n[limits]\nmax_record = "1KiB"\n')
    daemon.data = directory / "data"
    script = (
        "import socket, sys\n"
        "open('/proc/self/comm', 'wb').write(b'\\x1b]0;owned\\x07\\x9b\\r')\n"
        "sender = socket.socket(socket.AF_UNIX)\n"
        "sender.connect(sys.argv[1])\n"
        "sender.sendall(b'x' * 2000 + b'\\n')\n"
        "sender.shutdown(socket.SHUT_WR)\n"
        "sender.recv(1)\n"
    )
    try:
        daemon.start()
        subprocess.run([sys.executable, "-c", script, str(daemon.socket)], check=True, timeout=60)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(daemon.socket))
            other.sendall(b'{"_hello":1,"stream":"\\u001b]0;owned"}\n')
            assert not UNSAFE.search(other.recv(4096).decode())
        eventually(lambda: b"record_too_large" in daemon.log_path.read_bytes(), "the refusal")
        assert daemon.stop() == 0
    finally:
        daemon.close()
    text = daemon.log_path.read_bytes().decode()
    assert not UNSAFE.search(text), text
    assert "owned" in text


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(HOSTILE),
        AtomicWriteError.of(OSError(28, "No space left on device"), HOSTILE, "write"),
        DamagedSegment(HOSTILE, "cut off"),
        UnreadableSegment(HOSTILE, "Input/output error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_an_error_is_escaped_wherever_it_is_shown(error: LogEngineError) -> None:
    assert "\n" not in check(str(error).encode())


def test_what_a_client_says_of_its_socket_is_escaped(root: Path) -> None:
    script = (
        "import logengine, sys\n"
        "client = logengine.Client('app', socket=sys.argv[1], close_timeout=0.1)\n"
        "client.send({'n': 1})\n"
        "try:\n    client.close()\nexcept logengine.LogEngineError as error:\n"
        "    print('logengine:', error, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(root / HOSTILE)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith(b"logengine: ")]
    assert said
    for line in said:
        check(line)
