"""Keeps in a file which mutants were found, to continue an interrupted run."""

import hashlib
from functools import cached_property
from pathlib import Path

import msgspec

from tests.mutants.hunt import Caught
from tests.mutants.mutant import Mutant
from tests.mutants.tree import ROOT


class _Line(msgspec.Struct, frozen=True):
    """`of` identifies the engine and the mutant: the line counts for no others."""

    name: str
    of: str
    caught: Caught


class Found:
    """The mutants found so far, one line of JSON for each. Missed ones are not in it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: dict[str, _Line] = {}
        if file.exists():
            for text in file.read_bytes().splitlines():
                line = msgspec.json.decode(text, type=_Line)
                self._lines[line.name] = line

    def get(self, mutant: Mutant) -> Caught | None:
        """How this mutant of the current engine was found; None if it was not, or not yet."""
        line = self._lines.get(mutant.name)
        return line.caught if line is not None and line.of == self._of(mutant) else None

    def add(self, mutant: Mutant, caught: Caught) -> None:
        """Records that it was found."""
        line = _Line(mutant.name, self._of(mutant), caught)
        self._lines[mutant.name] = line
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")

    def _of(self, mutant: Mutant) -> str:
        said = repr((mutant.changes, mutant.patched))
        return hashlib.sha256(self._engine + said.encode()).hexdigest()[:16]

    @cached_property
    def _engine(self) -> bytes:
        digest = hashlib.sha256()
        for path in sorted((ROOT / "logengine").rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
        return digest.digest()
