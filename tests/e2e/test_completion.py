"""Completion as shells ask for it, and as a person at a real one sees it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.reading.streams import damage
from tests.terminal import Terminal

RECORDS = (
    b'{"level":"info","user":"ann"}\n{"level":"error","user":"Ann Lee","http":{"status":503}}\n'
)
BREAKS = "\"'@><=;|&(:"


@pytest.fixture
def environ(daemon: Daemon) -> dict[str, str]:
    daemon.cli("send", "-s", "shop", stdin=RECORDS)
    daemon.cli("send", "-s", "web-1", stdin=b"hello\n")
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOGENGINE_DATA": str(daemon.data),
        "LOGENGINE_SOCKET": str(daemon.socket),
    }


def asked(environ: dict[str, str], **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "logengine"],
        env=environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def in_bash(environ: dict[str, str], line: str) -> list[str]:
    return asked(environ, _LOGENGINE_COMPLETE="bash_complete", COMP_LINE=line, COMP_BREAKS=BREAKS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("logengine ta", ["plain,tail"]),
        ("logengine tail ", ["plain,shop", "plain,web-1"]),
        ("logengine cat shop w", ["plain,web-1"]),
        ("logengine erase s", ["plain,shop"]),
        ("logengine import -s we", ["plain,web-1"]),
        ("logengine send --stream=we", ["plain,web-1"]),
        ("logengine exec -s s", ["plain,shop"]),
        ("logengine backup --stream s", ["plain,shop"]),
        ("logengine count -o j", ["plain,json"]),
        ("logengine rate -o j", ["plain,json"]),
        ("logengine cat -o r", ["plain,raw"]),
        ("logengine cat --format=r", ["plain,raw"]),
        ("logengine cat --rev", ["plain,--reverse"]),
        ("logengine cat --where 'user == a", ["plain,user == ann"]),
        ("logengine cat --where 'user == ", ['plain,user == "Ann Lee"', "plain,user == ann"]),
        ('logengine cat --where "user == ', ['plain,user == \\"Ann Lee\\"', "plain,user == ann"]),
        ("logengine cat --where user=", ["plain,ann"]),
        ("logengine cat --where=user=", ["plain,ann"]),
        ("logengine cat --where us", ["open,user="]),
        ("logengine cat web-1 --where us", []),
        ("logengine count --by http.", ["plain,http.status"]),
        ("logengine cat --fields user,le", ["plain,user,level"]),
        ("logengine cat --data /nowhere ", []),
    ],
)
def test_bash_gets_what_it_puts_in_place_of_the_begun_word(
    environ: dict[str, str], line: str, expected: list[str]
) -> None:
    assert in_bash(environ, line) == expected


def test_other_shells_ask_by_words(environ: dict[str, str]) -> None:
    words = {"COMP_WORDS": "logengine cat --where 'user == a", "COMP_CWORD": "3"}
    assert asked(environ, _LOGENGINE_COMPLETE="zsh_complete", **words)[1] == "user == ann"
    assert asked(environ, _LOGENGINE_COMPLETE="bash_complete", **words) == ["plain,user == ann"]
    words["COMP_CWORD"] = "'user == a"
    assert asked(environ, _LOGENGINE_COMPLETE="fish_complete", **words) == ["plain,user == ann"]


def test_what_is_damaged_completes_nothing(daemon: Daemon, environ: dict[str, str]) -> None:
    daemon.stop()
    damage(daemon.data, "shop", 1)
    assert in_bash(environ, "logengine cat shop --where 'us") == []
    assert in_bash(environ, "logengine cat sh") == ["plain,shop"]


def test_completing_imports_nothing_of_the_daemon(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "logengine"],
        env=environ
        | {"_LOGENGINE_COMPLETE": "bash_complete", "COMP_LINE": "logengine cat --where 'us"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.split()[-1] for line in done.stderr.splitlines()}
    assert "logengine.cli.field_completion" in imported
    assert not imported & {"logengine.daemon", "asyncio", "uvloop", "cryptography", "structlog"}


@pytest.fixture
def bash(environ: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    """A bash that has the completion of its own user."""
    terminal = Terminal(
        ["bash", "--norc", "--noprofile", "-i"], environ | {"PS1": "> ", "PAGER": "cat"}, tmp_path
    )
    try:
        terminal.type("eval \"$(logengine completion bash)\"; echo read''y\n")
        terminal.wait_for(b"ready")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("logengine cat sho\t -o csv --fields us\t\n", b"user\r\nann\r\nAnn Lee\r\n"),
        ("logengine cou\tsh\t--where 'user == a\t\n", b"\r1\r\n"),
        ("logengine count shop --where us\tan\t\n", b"\r1\r\n"),
        ("logengine count shop --where 'user == \"A\t\n", b"\r1\r\n"),
        ('logengine count shop --where "user == an\t\n', b"\r1\r\n"),
        ("logengine count shop --where 'level >= warn\t\n", b"\r1\r\n"),
        ("logengine cat shop -o ra\t-n 1 | cut -c 1-7\n", b'{"_ts":'),
    ],
)
def test_a_person_completes_words_in_bash(bash: Terminal, typed: str, printed: bytes) -> None:
    bash.shown = b""
    bash.type(typed)
    bash.wait_for(printed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_that_its_shell_reads(environ: dict[str, str], shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "logengine", "completion", shell],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_LOGENGINE_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)
