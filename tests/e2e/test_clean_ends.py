"""Every command ends cleanly, however it is called or left: one line at most, no traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from logengine.cli import _COMMANDS, cli
from tests.daemon import COMMANDS, PATIENCE_S, Daemon, eventually
from tests.e2e.test_cli import LOGENGINE

BIG = "99999999999999999999"
ABSURD = [
    *(
        BIG,
        f"-{BIG}",
        "9" * 400,
        "1e400",
        "nan",
        "-1",
        "",
        "1.5",
        "٣",
        "²",
        f"{BIG}d",
        "9999999999d",
    ),
    *(f"app:{BIG}", "app:0", f"@{BIG}", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"),
    os.fsdecode(b"\xff"),
]
# What a command needs besides the option in question. None of them waits for long.
NEEDED: dict[str, Sequence[str]] = {
    "tail": ["--timeout", "50ms", "-f"],
    "rate": ["--timeout", "50ms"],
    "erase": ["app", "--reason", "x", "--dry-run"],
    "import": [os.devnull, "-s", "app"],
    "exec": ["--", "true"],
}
STATUSES = (0, 1, 2, 3, 125)  # 125: `exec` did not start its command
# They change what later commands find, or have no end of their own.
LEFT_OUT = {"run", "backup", "keygen", "web"}


@pytest.fixture(scope="module")
def command_lines() -> list[list[str]]:
    return [line for name in _COMMANDS if name not in LEFT_OUT for line in absurd_lines(name)]


def absurd_lines(name: str) -> Iterator[list[str]]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    needed = NEEDED.get(name, [])
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        option = parameter.opts[0]
        if isinstance(parameter.type, click.Path | click.File):
            continue
        for value in ABSURD:
            before = [f"{option}={value}"] if option.startswith("--") else [option, value]
            yield [name, *needed, *before] if name != "exec" else [name, *before, *needed]


def test_absurd_values_of_every_option_end_a_command_cleanly(
    daemon: Daemon, root: Path, command_lines: list[list[str]]
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\ntwo\n")
    environ = os.environ | {
        "LOGENGINE_DATA": str(daemon.data),
        "LOGENGINE_SOCKET": str(daemon.socket),
        "LOGENGINE_STATE": str(root / "state"),
    }
    assert len(command_lines) > 100
    for line in command_lines:
        done = COMMANDS.run(line, b"", environ, PATIENCE_S)
        assert done.returncode in STATUSES, done
        assert b"Traceback" not in done.stderr, done


@pytest.mark.parametrize(
    "arguments",
    [
        *(["tail", "-n", BIG], ["tail", "-n", BIG, "--where", "n=1"]),
        *(["tail", "-n", BIG, "-f", "--timeout", "50ms"], ["cat", "--after", f"app:{BIG}"]),
    ],
)
def test_a_number_too_large_for_any_stream_is_just_large(
    daemon: Daemon, arguments: list[str]
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\ntwo\n")
    done = daemon.cli(*arguments)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == (2 if arguments[-1] in (BIG, "50ms") else 0)


@pytest.mark.parametrize("command", ["cat", "tail -n 9999", "export", "export --format csv -"])
def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(
    daemon: Daemon, command: str
) -> None:
    daemon.cli("send", "-s", "app", stdin=(b"x" * 1000 + b"\n") * 2000)
    with subprocess.Popen(
        [*LOGENGINE, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(PATIENCE_S), process.stderr.read()) == (0, b"")


def interrupt_until_it_ends(process: subprocess.Popen[bytes]) -> None:
    def ended() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    eventually(ended, "the command to end")


# A signal before the first of these modules comes while Python itself and the library are loaded,
# which must not change what a signal does.
@pytest.mark.parametrize("module", ["click.core", "logengine.cli.", "asyncio"])
@pytest.mark.parametrize("command", ["tail -f", "send"])
def test_an_interrupt_while_modules_are_imported_prints_no_traceback(
    daemon: Daemon, command: str, module: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "logengine", *command.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ
        | {"LOGENGINE_DATA": str(daemon.data), "LOGENGINE_SOCKET": str(daemon.socket)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if module.encode() in line:
                break
        else:
            pytest.fail(f"{module} is not imported")
        interrupt_until_it_ends(process)
        rest = process.stderr.read()
    assert b"Traceback" not in rest, rest
    assert b"Exception ignored" not in rest, rest
    assert process.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize("command", ["tail -f", "send", "import - -s app", "send --resume name"])
def test_repeated_interrupts_of_a_command_that_waits_print_no_traceback(
    daemon: Daemon, root: Path, command: str
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    with subprocess.Popen(
        [*LOGENGINE, *command.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ
        | {"LOGENGINE_DATA": str(daemon.data), "LOGENGINE_SOCKET": str(daemon.socket)}
        | {"LOGENGINE_STATE": str(root / "state")},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if command == "tail -f":
            process.stdout.readline()
        else:
            eventually(lambda: is_connected(process.pid), "the command to connect")
        interrupt_until_it_ends(process)
        assert process.stderr.read() in (b"", b"\n")
    assert process.returncode in (130, -signal.SIGINT)


def is_connected(pid: int) -> bool:
    try:
        return any("socket:" in os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False
