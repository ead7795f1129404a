"""Runs the finders of one mutant, in a separate process."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.child import FOUND, SAYS
from tests.mutants.mutant import FailingTests, Finder, Mutant, Rig, Simulation
from tests.mutants.tree import ROOT, tree_with

SIMULATION = "simulation"
_TESTS_LIMIT_S = 900.0
_TEST_LIMIT_S = 120
# A test that makes its own mutant searches for as long as it takes.
_RIG_LIMIT_S = 840
# How much more wall time than processor time a search may take on a busy machine.
_BUSY = 12.0
_SHOWN = 100
_PYTEST = (
    *("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly"),
    "--hypothesis-seed=18",
)
# A test that is named runs even if it is a long campaign; a whole file runs without campaigns.
_ALSO_CAMPAIGNS = ("-m", "campaign or not campaign")


@dataclass(frozen=True)
class Caught:
    """The result of a hunt: which finder found the mutant and how, or why none did."""

    by: str
    how: str
    took_s: float

    @property
    def is_caught(self) -> bool:
        """Whether a finder found it."""
        return bool(self.by)


class BrokenFinder(Exception):
    """A finder did not run."""


def hunt(mutant: Mutant, *, seconds: float | None = None) -> Caught:
    """Runs the finders of a mutant, one after the other, until one finds it."""
    began_s = time.monotonic()
    how = ""
    with tree_with(mutant.changes) as tree:
        for finder in mutant.finders:
            is_found, how = _ask(finder, mutant, tree, seconds)
            if is_found:
                return Caught(_name_of(finder), how, time.monotonic() - began_s)
    return Caught("", how, time.monotonic() - began_s)


def _name_of(finder: Finder) -> str:
    if isinstance(finder, Simulation):
        return SIMULATION
    node = finder.node if isinstance(finder, Rig) else finder.nodes[0]
    return node.removeprefix("tests/").partition("::")[0]


def _ask(finder: Finder, mutant: Mutant, tree: Path, seconds: float | None) -> tuple[bool, str]:
    match finder:
        case Simulation():
            patched = [mutant.patched] if mutant.patched else []
            return _simulate(finder, tree, patched, seconds)
        case FailingTests(nodes):
            return _fail(tree, nodes)
        case Rig(node):
            status, said = _pytest(tree, [node], _RIG_LIMIT_S)
            return status == 0, said


def _fail(tree: Path, nodes: tuple[str, ...]) -> tuple[bool, str]:
    """Runs tests. A failure counts only if the unchanged engine passes."""
    status, node = _pytest(tree, nodes)
    if status != FOUND:
        return False, ""
    # The same test, even if it is a file that is in neither tree.
    same = os.path.normpath(tree / node).removeprefix(f"{tree}/")
    again, _ = _pytest(ROOT, [same] if node else nodes)
    if again == FOUND:
        raise BrokenFinder(f"the engine as it is fails as well: {node or ' '.join(nodes)}")
    return True, node.partition("::")[2][:_SHOWN]


def _pytest(
    tree: Path, nodes: tuple[str, ...] | list[str], limit_s: int = _TEST_LIMIT_S
) -> tuple[int, str]:
    """The status of pytest, and the first test that failed, or took longer than `limit_s`."""
    try:
        marks = _ALSO_CAMPAIGNS if all("::" in node for node in nodes) else ()
        arguments = ["pytest", *_PYTEST, f"--timeout={limit_s}", *marks, *nodes]
        status, lines = _run(tree, arguments, _TESTS_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BrokenFinder(
            f"pytest {' '.join(nodes)}: not done in {_TESTS_LIMIT_S:.0f} s"
        ) from None
    if status not in (0, FOUND):
        raise BrokenFinder(f"pytest {' '.join(nodes)} ended with {status}:\n" + "\n".join(lines))
    failed = [line for line in lines if line.startswith("FAILED")]
    return status, failed[0].removeprefix("FAILED ").partition(" - ")[0] if failed else ""


def _simulate(
    finder: Simulation, tree: Path, patched: list[str], seconds: float | None
) -> tuple[bool, str]:
    """Runs the simulation. A scenario counts only if the unchanged engine passes it."""
    seconds = seconds or finder.seconds
    seed = finder.seed
    left_s = seconds
    while left_s > 0:
        began_s = time.monotonic()
        try:
            arguments = ["simulate", str(left_s), str(seed), *patched]
            status, lines = _run(tree, arguments, seconds * _BUSY)
        except subprocess.TimeoutExpired:
            return False, "it hangs, and nobody says so"
        said = next((line for line in lines if line.startswith(SAYS)), "")
        if not said:
            raise BrokenFinder("the simulation itself failed:\n" + "\n".join(lines[-20:]))
        found, _, what = said.removeprefix(SAYS).partition(" ")
        if status != FOUND:
            return False, f"not from seed {finder.seed} to {found}"
        if not _fails(int(found)):
            return True, f"seed {found}: {what}"[:_SHOWN]
        seed = int(found) + 1
        left_s -= min(left_s, time.monotonic() - began_s)
    return False, "the engine as it is fails as well"


def _fails(seed: int) -> bool:
    """Whether the unchanged engine breaks a promise in this scenario."""
    status, _ = _run(ROOT, ["simulate", "0.000001", str(seed)], 600)
    return status == FOUND


def _run(tree: Path, arguments: list[str], limit_s: float) -> tuple[int, list[str]]:
    environ = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.child", *arguments],
        cwd=tree,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )
    return done.returncode, done.stdout.splitlines() or [""]
