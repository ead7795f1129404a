"""What a mutant is: a change of the engine's text, what is wrong with it, and who finds it."""

from dataclasses import dataclass

# Of processor time. What takes longer is not found reliably.
SEARCH_S = 60.0
FIRST_SEED = 18


@dataclass(frozen=True)
class Simulation:
    """The simulation of the whole daemon: so many seconds of processor time, from a seed on."""

    seconds: float = SEARCH_S
    seed: int = FIRST_SEED

    def __str__(self) -> str:
        return "the simulation"


@dataclass(frozen=True)
class FailingTests:
    """Tests that are to fail, as pytest names them."""

    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.nodes)


@dataclass(frozen=True)
class Rig:
    """A test that has a mutant of its own, and succeeds where it is found."""

    node: str

    def __str__(self) -> str:
        return self.node


Finder = Simulation | FailingTests | Rig


def tests(*nodes: str) -> FailingTests:
    """Tests below `tests/` that are to fail."""
    return FailingTests(tuple(f"tests/{node}" for node in nodes))


@dataclass(frozen=True)
class Change:
    """In `module`, a file below `logengine/`, `old` occurs once, and is `new` instead."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One thing done wrong.

    `wrong` says what, in a line. The `finders` are asked one after the other. `harmless` says why
    nobody can find it, where it breaks no promise: then it is not counted. `patched` names a
    mutant of the crash rig, which needs no changed text.
    """

    name: str
    wrong: str
    changes: tuple[Change, ...] = ()
    finders: tuple[Finder, ...] = (Simulation(),)
    harmless: str = ""
    patched: str = ""  # one of `tests.crash.rig.mutants`

    def __str__(self) -> str:
        return self.name
