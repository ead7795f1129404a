"""Some work on a data directory, cut off and failed at every one of its calls.

For what has no producers to ask: a retention, a drop, a repair, an erasure. Of each, a case
is drawn from a seed, and judged after every cut and after every call that failed.
"""

import contextlib
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from structlog.testing import capture_logs

from logengine.errors import DamagedSegment
from tests.crash.rig.cuts import SCRATCH
from tests.crash.rig.power_cut import Disk, Tree
from tests.crash.rig.system_calls import (
    CHANGING,
    LOOKING,
    Attempt,
    Gate,
    SystemCalls,
    let_through,
)

Case = TypeVar("Case")


class Cut(NamedTuple):
    """What one cut left: the tree, made for real below `root`, and the disk that it came from."""

    root: Path
    tree: Tree
    disk: Disk
    source: random.Random


@dataclass
class Tried:
    """How much was tried."""

    cases: int = 0
    trees: int = 0
    failing_calls: int = 0

    def __add__(self, other: "Tried") -> "Tried":
        return Tried(
            self.cases + other.cases,
            self.trees + other.trees,
            self.failing_calls + other.failing_calls,
        )

    def __str__(self) -> str:
        return (
            f"{self.cases:,} streams, {self.trees:,} trees after cuts, "
            f"{self.failing_calls:,} failing calls"
        )


Work = Callable[[Path], None]
Judge = Callable[[Cut], Iterable[str]]
# Of a path in a tree, the one that is another name of the same file, if any.
SameFile = Callable[[str], str | None]


def no_other_name(_path: str) -> str | None:
    """For work that gives no file a second name."""
    return None


def names_aside(directory: str, stream: str) -> SameFile:
    """For work that gives files of a stream a second name in `directory`, ending as the first."""

    def same_file(path: str) -> str | None:
        return f"data/{stream}/{path.rpartition('-')[2]}" if directory in path else None

    return same_file


@contextlib.contextmanager
def scratch_place() -> Iterator[Path]:
    """An empty directory, in memory where there is some."""
    with tempfile.TemporaryDirectory(prefix="logengine-work-", dir=SCRATCH) as place:
        yield Path(place)


def drawn_cases(
    place: Path, seeds: Iterable[int], make: Callable[[Path, random.Random], Case]
) -> Iterator[tuple[random.Random, Case, Path]]:
    """A case for each seed, what draws the rest of it, and where it was made."""
    for seed in seeds:
        source = random.Random(seed)
        root = place / "made"
        root.mkdir()
        yield source, make(root, source), root
        shutil.rmtree(root)


def tree_of(root: Path) -> Tree:
    """What is below `root`, but the lock."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.name != ".lock"
    }


def make_tree(root: Path, tree: Tree, same_file: SameFile = no_other_name) -> Path:
    """A new directory `root` that holds `tree`."""
    root.mkdir()
    for path, content in sorted(
        tree.items(), key=lambda each: (same_file(each[0]) is not None, each[0])
    ):
        if content is None:
            (root / path).mkdir()
            continue
        other = same_file(path)
        if other is not None and tree.get(other) == content:
            os.link(root / other, root / path)
        else:
            (root / path).write_bytes(content)
    return root


def recorded(root: Path, tree: Tree, work: Work, gate: Gate = let_through) -> SystemCalls:
    """The calls of `work` on a directory that holds `tree`."""
    disk = Disk(tree)
    calls = SystemCalls(root, names=disk.names(), inode=disk.next_inode, gate=gate)
    with calls.taken(), capture_logs():
        work(root)
    return calls


def cut_everywhere(
    place: Path,
    tree: Tree,
    trace: Sequence[Any],
    source: random.Random,
    judge: Judge,
    same_file: SameFile = no_other_name,
    *,
    states_max: int | None = None,
) -> int:
    """Cuts the power, which is more than a kill, after each call; each different tree once.

    With `states_max`, at most that many states are drawn from all that a cut may leave.

    Raises `AssertionError` with what `judge` finds wrong.
    """
    disk = Disk(tree)
    seen: set[tuple[tuple[str, bytes | None], ...]] = set()
    for event in trace:
        if not disk.apply(event):
            continue
        states = list(disk.states(source))
        if states_max is not None:
            states = source.sample(states, min(len(states), states_max))
        for after in states:
            key = tuple(sorted(after.items()))
            if key in seen:
                continue
            seen.add(key)
            root = make_tree(place / "cut", after, same_file)
            with capture_logs():
                wrong = list(judge(Cut(root, after, disk, source)))
            assert not wrong, f"cut after {str(event)[:80]}: {wrong}"
            shutil.rmtree(root)
    return len(seen)


def failing(at: int, error: int) -> Gate:
    """Lets one call fail."""

    def gate(attempt: Attempt) -> None:
        if attempt.number == at:
            raise OSError(error, "injected", attempt.path)

    return gate


def fail_every_call(
    place: Path,
    tree: Tree,
    work: Work,
    source: random.Random,
    judge: Callable[[Path, SystemCalls, Attempt], Iterable[str]],
    same_file: SameFile = no_other_name,
    *,
    again: bool = True,
    calls_failed: Collection[str] = CHANGING | LOOKING,
) -> int:
    """Lets each call of `work` fail once, and does it `again`; gives how many were failed.

    Raises `AssertionError` with what `judge` finds wrong then.
    """

    whole = make_tree(place / "whole", tree, same_file)
    attempts = recorded(whole, tree, work).attempts
    shutil.rmtree(whole)
    numbers = [attempt.number for attempt in attempts if attempt.call in calls_failed]
    for at in numbers:
        root = make_tree(place / "failing", tree, same_file)
        disk = Disk(tree)
        gate = failing(at, source.choice([errno.EIO, errno.ENOSPC]))
        calls = SystemCalls(root, names=disk.names(), inode=disk.next_inode, gate=gate)
        # What cannot be read is said, and then nothing is promised.
        with capture_logs(), contextlib.suppress(DamagedSegment):
            with calls.taken():
                with contextlib.suppress(OSError):
                    work(root)
                if again:
                    work(root)
            attempt = calls.attempts[at - 1]
            wrong = list(judge(root, calls, attempt))
            assert not wrong, f"call {at}: {attempt}: {wrong}"
        shutil.rmtree(root)
    return len(numbers)
