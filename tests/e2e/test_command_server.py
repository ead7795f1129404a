"""A forked command does what one does that is started on its own."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.command_server import CommandServer
from tests.daemon import COMMANDS, PATIENCE_S, Daemon


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["--version"], b""),
        (["nonsense"], b""),
        (["cat", "nope"], b""),
        (["cat", "app"], b""),
        (["exec", "-s", "app", "--", "sh", "-c", "kill -9 $$"], b""),
        (["send", "-s", "app", "--timeout", "30s", "nope"], b"never read" * 100_000),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_it_ends_and_prints_as_one_of_its_own(
    daemon: Daemon, arguments: list[str], stdin: bytes
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"x" * 1000 + b"\n" + b"y\n" * 10_000)
    environ = os.environ | {
        "LOGENGINE_DATA": str(daemon.data),
        "LOGENGINE_SOCKET": str(daemon.socket),
    }
    forked = COMMANDS.run(arguments, stdin, environ, PATIENCE_S)
    own = subprocess.run(
        [sys.executable, "-m", "logengine", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env=environ,
        timeout=PATIENCE_S,
    )
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        own.returncode,
        own.stdout,
        own.stderr,
    )


def test_a_command_that_waits_holds_up_no_other_and_is_killed_in_the_end(root: Path) -> None:
    waits = ["send", "--socket", str(root / "nobody")]
    ended: list[subprocess.TimeoutExpired] = []

    def wait() -> None:
        with pytest.raises(subprocess.TimeoutExpired) as expired:
            COMMANDS.run(waits, b"x\n", os.environ, 1)
        ended.append(expired.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert COMMANDS.run(["--version"], b"", os.environ, PATIENCE_S).returncode == 0
    waiting.join(PATIENCE_S)
    assert ended


@pytest.mark.parametrize("name", ["TZ", "LC_ALL", "PYTHONUTF8"])
def test_what_looks_at_its_environment_when_it_starts_is_not_forked(name: str) -> None:
    assert COMMANDS.serves(os.environ | {"LOGENGINE_DATA": "elsewhere"})
    assert not COMMANDS.serves(os.environ | {name: "other"})


def test_a_test_that_changes_its_environment_before_the_first_command_changes_no_other_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = CommandServer()
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "another")
        assert not commands.serves(os.environ)
    assert commands.serves(os.environ)
