"""Followed files and a daemon that is killed with -9 again and again.

A program appends lines and rotates its file in every way that is usual, also several times between
two looks of the daemon, and while there is none. Each line is stored once.
"""

import contextlib
import gzip
import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.daemon import Daemon, eventually

KILLS = 20


class Program:
    """Appends numbered lines to a file, and rotates it."""

    def __init__(self, path: Path, seed: int, ways: list[str]) -> None:
        self.path = path
        self.lines = 0
        self._random = random.Random(seed)
        self._ways = ways
        self._file = path.open("ab", buffering=0)
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: Exception | None = None

    def append(self) -> None:
        """Appends a line before it is started."""
        self._append()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """Stops it; returns how many lines there are."""
        self._stops.set()
        self._thread.join()
        self._file.close()
        assert self.error is None
        return self.lines

    def _run(self) -> None:
        try:
            while not self._stops.wait(self._random.uniform(0, 0.01)):
                for _ in range(self._random.randint(1, 20)):
                    self._append()
                if self._random.random() < 0.01:
                    getattr(self, f"_{self._random.choice(self._ways)}")()
        except Exception as error:
            self.error = error
            raise

    def _append(self) -> None:
        self.lines += 1
        line = b"%d %s\n" % (self.lines, b"x" * self._random.choice([5, 50, 500]))
        cut = self._random.randint(0, len(line))  # some programs write a line in two calls
        self._file.write(line[:cut])
        self._file.write(line[cut:])

    def _name(self, generation: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{generation}")

    def _shift(self) -> None:
        generations = sorted(
            (int(each.name.removesuffix(".gz").rpartition(".")[2]), each)
            for each in self.path.parent.glob(f"{self.path.name}.*")
        )
        for generation, path in reversed(generations):
            suffix = ".gz" if path.suffix == ".gz" else ""
            path.rename(f"{self._name(generation + 1)}{suffix}")

    def _rename(self) -> None:
        self._shift()
        self.path.rename(self._name(1))
        if self._random.random() < 0.5:
            self._append()  # the program notices only later
        self._file.close()
        self._file = self.path.open("ab", buffering=0)

    def _compress(self) -> None:
        self._rename()
        with self._name(1).open("rb") as plain, gzip.open(f"{self._name(1)}.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        self._name(1).unlink()

    def _copytruncate(self) -> None:
        self._shift()
        shutil.copyfile(self.path, self._name(1))
        os.truncate(self.path, 0)


def numbers(daemon: Daemon) -> list[int]:
    return [int(value["message"].split()[0]) for value in daemon.values("app")]


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param(["rename"], id="rename"),
        pytest.param(["copytruncate"], id="copytruncate"),
        pytest.param(["rename", "compress"], id="rename+compress"),
        pytest.param(["rename", "compress", "copytruncate"], id="all"),
    ],
)
@pytest.mark.disk
def test_each_line_of_a_rotated_file_is_stored_once_however_often_the_daemon_is_killed(
    root: Path, ways: list[str]
) -> None:
    logs = root / "logs"
    logs.mkdir()
    seed = int(os.environ.get("SEED", "20261128"))
    daemon = Daemon(root, f"[[file]]\npath = '{logs}/app.log'\nformat = 'lines'\n")
    program = Program(logs / "app.log", seed, ways)
    source = random.Random(seed)
    with contextlib.closing(daemon):
        daemon.start()
        # Of a path of which nothing is known, older generations are not read.
        program.append()
        eventually(lambda: numbers(daemon) == [1], "the first line")
        program.start()
        try:
            for _ in range(KILLS):
                _pause(source.uniform(0.01, 0.3))
                daemon.kill()
                _pause(source.choice([0, 0, 0.2]))
                daemon.start()
        finally:
            written = program.stop()
        with contextlib.suppress(AssertionError):  # what is missing says more
            eventually(lambda: len(numbers(daemon)) >= written, "all lines")
        found = numbers(daemon)
        missing = sorted(set(range(1, written + 1)) - set(found))
        assert (missing, len(found)) == ([], written), daemon.log_path.read_text()
        daemon.cli("verify")


def _pause(seconds: float) -> None:
    time.sleep(seconds)
