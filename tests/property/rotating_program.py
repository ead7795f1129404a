"""A program that writes a log and rotates it, one system call at a time.

Between any two of its calls something else may look at its directory. It numbers its lines, so that
a reader can be asked for each one.
"""

import gzip
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

_GENERATION = re.compile(r"\.(\d+)(\.gz)?")


class RotatingProgram:
    """Appends lines to the file at `path`, and rotates it in the ways of `ways`."""

    def __init__(self, path: Path, source: random.Random, ways: list[str]) -> None:
        self.path = path
        self.lines = 0
        self.is_between = True  # nothing is half done: no line, no rotation
        self._random = source
        self._ways = ways
        self._file = path.open("ab", buffering=0)
        self._calls = self._run()

    def go_on(self, calls: int) -> None:
        """Makes some more of its system calls."""
        for _ in range(calls):
            next(self._calls)

    def finish(self) -> None:
        """Ends what is half done."""
        while not self.is_between:
            next(self._calls)

    def close(self) -> None:
        """Closes its file."""
        self._file.close()

    def append(self) -> None:
        """Appends a line at once."""
        for _ in self._append():
            pass

    def _run(self) -> Iterator[None]:
        while True:
            self.is_between = False
            if self._random.random() < 0.2:
                yield from getattr(self, f"_{self._random.choice(self._ways)}")()
            else:
                for _ in range(self._random.choice([1, 1, 3, 30])):
                    yield from self._append()
            self.is_between = True
            yield

    def _append(self) -> Iterator[None]:
        self.lines += 1
        line = b"%d %s\n" % (self.lines, b"x" * self._random.choice([0, 5, 50, 500]))
        cut = self._random.choice([0, 0, self._random.randrange(len(line))])
        self._file.write(line[:cut])
        if cut:
            yield
        self._file.write(line[cut:])
        yield

    def _name(self, generation: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{generation}")

    def _shift(self) -> Iterator[None]:
        there = [
            (int(found[1]), found[2] or "", name)
            for name in os.listdir(self.path.parent)
            if (found := _GENERATION.fullmatch(name.removeprefix(self.path.name)))
        ]
        for generation, suffix, name in sorted(there, reverse=True):
            os.rename(self.path.with_name(name), f"{self._name(generation + 1)}{suffix}")
            yield

    def _rename(self) -> Iterator[None]:
        yield from self._shift()
        os.rename(self.path, self._name(1))
        yield
        if self._random.random() < 0.5:
            yield from self._append()  # it notices only later
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        yield

    def _compress(self) -> Iterator[None]:
        yield from self._rename()
        yield from self._pack(self._name(1))

    def _pack(self, plain: Path) -> Iterator[None]:
        """Writes the compressed file under its own name, as gzip does."""
        packed = gzip.compress(plain.read_bytes())
        with Path(f"{plain}.gz").open("wb", buffering=0) as file:
            yield
            file.write(packed[: len(packed) // 2])
            yield
            file.write(packed[len(packed) // 2 :])
        yield
        plain.unlink()
        yield

    def _compress_aside(self) -> Iterator[None]:
        """Gives the compressed file its name when it is complete."""
        yield from self._rename()
        aside = self.path.with_name("compressing")
        aside.write_bytes(gzip.compress(self._name(1).read_bytes()))
        yield
        os.rename(aside, f"{self._name(1)}.gz")
        yield
        self._name(1).unlink()
        yield

    def _delaycompress(self) -> Iterator[None]:
        """Compresses the generation before, as logrotate does with this option."""
        yield from self._rename()
        if self._name(2).exists():
            yield from self._pack(self._name(2))

    def _copytruncate(self) -> Iterator[None]:
        yield from self._shift()
        data = self.path.read_bytes()
        with self._name(1).open("wb", buffering=0) as file:
            yield
            file.write(data[: len(data) // 2])
            yield
            file.write(data[len(data) // 2 :])
        yield
        os.truncate(self.path, 0)
        yield

    def _copytruncate_and_compress(self) -> Iterator[None]:
        yield from self._copytruncate()
        yield from self._pack(self._name(1))

    def _pack_and_truncate(self) -> Iterator[None]:
        """Gives the copy its name only when the file is truncated."""
        aside = self.path.with_name("compressing")
        aside.write_bytes(gzip.compress(self.path.read_bytes()))
        yield
        os.truncate(self.path, 0)
        yield
        yield from self._shift()
        os.rename(aside, f"{self._name(1)}.gz")
        yield
