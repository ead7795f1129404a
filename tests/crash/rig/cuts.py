"""Cuts the power at every point of a recorded run, in every way the model knows.

Each tree that a disk may hold then is made for real, recovered by the engine's own code,
and held against all that was promised up to the cut.
"""

import contextlib
import copy
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.rig import oracle
from tests.crash.rig.oracle import Found, MakeRetainer, Producer, Promises
from tests.crash.rig.power_cut import Disk, Tree
from tests.crash.rig.system_calls import SyncFailed, SystemCalls, Written

# Where there is memory that looks like a disk, states are made many times faster.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

_NOTE = b"\nunsynced "


@dataclass
class Report:
    """How much was tried, and what went wrong; `faults` are runs with a failing call."""

    faults: int = 0
    points: int = 0
    states: int = 0
    trees: int = 0
    violations: list[str] = field(default_factory=list)

    def __add__(self, other: "Report") -> "Report":
        return Report(
            self.faults + other.faults,
            self.points + other.points,
            self.states + other.states,
            self.trees + other.trees,
            self.violations + other.violations,
        )

    def __str__(self) -> str:
        tried = f"{self.faults:,} faults, " if self.faults else ""
        return (
            f"{tried}{self.points:,} cuts, {self.states:,} states, of them {self.trees:,} "
            f"different trees recovered, {len(self.violations)} violations"
        )


class Bench:
    """Makes trees real and recovers them; each different tree once."""

    def __init__(
        self,
        root: Path,
        producers: Iterable[Producer],
        make_retainer: MakeRetainer | None = None,
    ) -> None:
        self._root = root
        self._make_retainer = make_retainer
        self._producers = list(producers)
        self._contents: dict[bytes, Path] = {}
        self._found: dict[tuple[tuple[str, bytes | None], ...], Found] = {}
        self._made = 0

    def make(self, tree: Tree) -> Path:
        """A directory that holds `tree`.

        Files are links to one of the same content: nothing of ours writes into a file
        that is there already, and `SystemCalls` would notice.
        """
        self._made += 1
        root = self._root / str(self._made)
        root.mkdir()
        for path, content in sorted(tree.items()):
            if content is None:
                (root / path).mkdir()
            else:
                os.link(self._file_of(content), root / path)
        return root

    def recovered(self, tree: Tree) -> tuple[Found, bool]:
        """What recovery makes of `tree`, and whether that was not known yet."""
        key = tuple(sorted(tree.items()))
        found = self._found.get(key)
        if found is not None:
            return found, False
        root = self.make(tree)
        found = self._found[key] = self._recover(root)
        shutil.rmtree(root)
        return found, True

    def second_life(self, disk: Disk) -> list[Any]:
        """What a daemon does that starts after a kill, with what it promises."""
        root = self.make(disk.now())
        calls = SystemCalls(root, names=disk.names(), inode=disk.next_inode)
        with calls.taken():
            self._recover(root, calls.note)
        shutil.rmtree(root)
        return calls.trace

    def _recover(self, root: Path, note: Callable[[object], None] = lambda _: None) -> Found:
        return oracle.recover(root / "data", self._producers, note, self._make_retainer)

    def _file_of(self, content: bytes) -> Path:
        path = self._contents.get(content)
        if path is None:
            path = self._contents[content] = self._root / f"content-{len(self._contents)}"
            path.write_bytes(content)
        return path


@contextlib.contextmanager
def bench(
    producers: Iterable[Producer], make_retainer: MakeRetainer | None = None
) -> Iterator[Bench]:
    """A place to make trees in."""
    with tempfile.TemporaryDirectory(prefix="logengine-cuts-", dir=SCRATCH) as root:
        yield Bench(Path(root), producers, make_retainer)


def cut_everywhere(
    trace: Sequence[Any],
    on: Bench,
    source: random.Random,
    *,
    disk: Disk | None = None,
    promises: Promises | None = None,
    kills: float = 0.0,
    notes_failed_syncs: bool = False,
) -> Report:
    """Cuts the power after each event of `trace` that tells.

    After a share `kills` of the events the process is killed instead, another one starts
    on what is left, and the power is cut in its life. With `notes_failed_syncs` not in the
    moment between a sync that failed and the note of that, which docs/guarantees.md tells of.
    """
    disk, promises, report = disk or Disk(), promises or Promises(), Report()
    is_to_be_noted = False
    for event in trace:
        is_promise = promises.take(event)
        is_change = disk.apply(event)
        if not (is_promise or is_change):
            continue
        report.points += 1
        for tree in disk.states(source):
            report.states += 1
            found, is_new = on.recovered(tree)
            report.trees += is_new
            broken = promises.broken_by(found)
            if broken:
                report.violations.append(f"cut after {str(event)[:90]}: {broken[0]}")
                return report
        if notes_failed_syncs:
            is_note = isinstance(event, Written) and event.data.startswith(_NOTE)
            is_to_be_noted = isinstance(event, SyncFailed) or (is_to_be_noted and not is_note)
        if is_change and not is_to_be_noted and source.random() < kills:
            report += cut_everywhere(
                on.second_life(disk),
                on,
                source,
                disk=copy.deepcopy(disk),
                promises=copy.deepcopy(promises),
            )
            if report.violations:
                return report
    return report
