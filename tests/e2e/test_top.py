"""`logengine top` on a real terminal: it starts, shows, and ends as people expect."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, eventually
from tests.terminal import Terminal, environ_of_a_person

LOGENGINE = [sys.executable, "-m", "logengine"]


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for each in made:
        each.close()


def top(daemon: Daemon, terminals: list[Terminal], *arguments: str, **environ: str) -> Terminal:
    paths = ("--data", str(daemon.data), "--socket", str(daemon.socket))
    terminal = Terminal(
        [*LOGENGINE, "top", *arguments, *paths],
        environ_of_a_person(**environ),
        rows=24,
        columns=80,
    )
    terminals.append(terminal)
    return terminal


def send(daemon: Daemon, stream: str, *lines: str) -> None:
    daemon.cli("send", "-s", stream, stdin="".join(f"{line}\n" for line in lines).encode())


def test_it_shows_streams_and_the_records_of_one_as_they_arrive(
    daemon: Daemon, terminals: list[Terminal]
) -> None:
    send(daemon, "shop", '{"level":"error","event":"payment failed"}')
    terminal = top(daemon, terminals)
    terminal.wait_for("daemon ok")
    terminal.wait_for("shop")
    drawn = terminal.type("\r")
    terminal.wait_for("payment failed", drawn)
    send(daemon, "shop", '{"level":"info","event":"payment repeated"}')
    terminal.wait_for("payment repeated", drawn)
    terminal.type("q")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text


def test_it_works_without_a_daemon_and_shows_a_daemon_that_starts(
    daemon: Daemon, terminals: list[Terminal]
) -> None:
    send(daemon, "shop", '{"event":"before"}')
    daemon.stop()
    terminal = top(daemon, terminals)
    terminal.wait_for("no daemon answers")
    terminal.wait_for("shop")
    daemon.start()
    terminal.wait_for("daemon ok")
    send(daemon, "later", '{"event":"new stream"}')
    terminal.wait_for("later")
    terminal.type("q")
    assert terminal.end() == 0


@pytest.mark.parametrize("ending", ["q", "\x03", signal.SIGINT, signal.SIGTERM, "hang up"])
def test_it_ends_cleanly(
    daemon: Daemon, terminals: list[Terminal], ending: str | signal.Signals
) -> None:
    terminal = top(daemon, terminals)
    terminal.wait_for("no streams yet")
    if ending == "hang up":
        terminal.hang_up()
    elif isinstance(ending, signal.Signals):
        terminal.process.send_signal(ending)
    else:
        terminal.type(ending)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    if ending != "hang up":  # the terminal is as it was before
        eventually(lambda: b"\x1b[?1049l" in terminal.shown, "the usual screen")


@pytest.mark.parametrize("ending", ["q", "\x03", signal.SIGTERM])
def test_it_ends_though_its_terminal_stands_still(
    daemon: Daemon, terminals: list[Terminal], ending: str | signal.Signals
) -> None:
    paths = ("--data", str(daemon.data), "--socket", str(daemon.socket))
    terminal = Terminal(
        [*LOGENGINE, "top", *paths],
        environ_of_a_person(),
        rows=400,
        columns=1000,
        stands_still=True,
    )
    terminals.append(terminal)
    terminal.wait_for_anything()
    if isinstance(ending, signal.Signals):
        terminal.process.send_signal(ending)
    else:
        terminal.type(ending)
    assert terminal.end() == 0


def test_hostile_records_do_nothing_to_the_terminal(
    daemon: Daemon, terminals: list[Terminal]
) -> None:
    hostile = r"\u001b]0;owned\u0007 \u001b[2Jgone \u202e [bold red]markup[/] [@click=app.quit]x[/]"
    send(daemon, "shop", f'{{"level":"error","event":"{hostile}","[b]":"[/b]"}}')
    terminal = top(daemon, terminals)
    terminal.wait_for("shop")
    drawn = terminal.type("\r")
    terminal.wait_for(r"\x1b]0;owned\x07", drawn)
    drawn = terminal.type("\r")  # opens the record
    terminal.wait_for("[bold red]markup[/]", drawn)
    drawn = terminal.type("f")  # as JSON
    terminal.wait_for(r"\u001b]0;owned\u0007", drawn)
    terminal.type("q")
    assert terminal.end() == 0
    assert b"\x1b]0;owned" not in terminal.shown
    assert b"\x1b[2Jgone" not in terminal.shown
    assert "\u202e" not in terminal.text


def test_without_colours_levels_and_the_selection_are_still_seen(
    daemon: Daemon, terminals: list[Terminal]
) -> None:
    send(daemon, "shop", '{"level":"error","event":"payment failed"}')
    terminal = top(daemon, terminals, NO_COLOR="1")
    terminal.wait_for("shop")
    drawn = terminal.type("\r")
    terminal.wait_for("ERROR", drawn)
    terminal.type("q")
    assert terminal.end() == 0
    # Grey scales are all that is left.
    colours = re.findall(rb"38;2;(\d+);(\d+);(\d+)", terminal.shown)
    assert all(max(map(int, each)) - min(map(int, each)) <= 1 for each in colours)
    assert not re.search(rb"\x1b\[(\d+;)*(3[1-6]|9[1-6])(;\d+)*m", terminal.shown)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), b"top needs a terminal"), (("--where", "level >="), b"level")],
)
def test_without_a_terminal_it_says_so_in_one_line(
    daemon: Daemon, arguments: tuple[str, ...], expected: bytes
) -> None:
    done = daemon.cli("top", *arguments, status=2)
    assert b"top needs a terminal" in done.stderr
    assert not done.stdout


def test_a_dumb_terminal_is_refused_in_one_line(daemon: Daemon, terminals: list[Terminal]) -> None:
    terminal = top(daemon, terminals, TERM="dumb")
    assert terminal.end() == 2
    terminal.wait_for("TERM says")


def test_a_wrong_expression_is_refused_before_anything_is_drawn(
    daemon: Daemon, terminals: list[Terminal]
) -> None:
    terminal = top(daemon, terminals, "--where", "level >= ")
    assert terminal.end() == 2
    terminal.wait_for("level >=")
    assert b"\x1b[?1049h" not in terminal.shown


def test_without_textual_it_says_what_to_install(
    daemon: Daemon, terminals: list[Terminal], tmp_path: Path
) -> None:
    (tmp_path / "textual.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'textual'\", name='textual')"
    )
    paths = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    terminal = top(daemon, terminals, PYTHONPATH=paths)
    assert terminal.end() == 1
    terminal.wait_for("pip install 'logengine[top]'")
    assert "Traceback" not in terminal.text
