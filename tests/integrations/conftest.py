"""A daemon with the sockets of the page, and the recipes."""

import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.integrations.page import Recipe, is_as_shown, recipe
from tests.integrations.programs import environment


def _is_bound(path: str, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        return probe.connect_ex(path) == 0


class Host:
    """A daemon as the page configures it, and programs that run beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "run").mkdir()
        self.sockets = root / "run"
        self.daemon = Daemon(root, self.recipe("The sockets").code("toml"))
        self.daemon.socket = self.sockets / "socket"

    def start(self) -> None:
        """Starts the daemon. Returns when all its sockets are there: it binds one by one."""
        self.daemon.start()
        for each in tomllib.loads(self.daemon.config.read_text())["listen"]:
            kind = socket.SOCK_DGRAM if each.get("type") == "datagram" else socket.SOCK_STREAM
            eventually(partial(_is_bound, each["path"], kind), f"{each['path']} to be there")

    def recipe(self, heading: str) -> Recipe:
        return recipe(heading, self.sockets)

    def has(self, stream: str, shown: Recipe) -> None:
        """Returns when the records of the recipe are on disk, and no others."""
        expected = shown.records()
        assert expected
        eventually(lambda: len(self.daemon.values(stream)) >= len(expected), f"{expected}")
        # Of two sockets, either may be read first.
        found = self.daemon.values(stream)
        for wanted in expected:
            as_shown = [each for each in found if is_as_shown(each, wanted)]
            assert as_shown, f"{found} has no {wanted}"
            found.remove(as_shown[0])
        assert not found

    def has_among(self, stream: str, shown: Recipe) -> None:
        """Returns when the records of the recipe are on disk, whatever else is."""
        for wanted in shown.records():

            def is_there(wanted: dict[str, Any] = wanted) -> bool:
                return any(is_as_shown(each, wanted) for each in self.daemon.values(stream))

            eventually(is_there, f"{wanted}")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text)
        return path

    def run(self, *command: str | Path, **environ: str) -> str:
        """Runs a command to its end, which must be good. Returns what it printed."""
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE_S,
            cwd=self.root,
            env=environment() | environ,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    @contextmanager
    def running(self, *command: str | Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs beside, and is stopped at the end."""
        with (self.root / "program.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.root, env=environment() | environ
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def said(self) -> str:
        """What the programs beside printed."""
        return (self.root / "program.log").read_text(errors="replace")


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    made = Host(root)
    try:
        made.start()
        yield made
    finally:
        made.daemon.close()
