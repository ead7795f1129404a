"""Defines a mutant: a change of the engine's text, what is wrong with it, and its finders."""

from dataclasses import dataclass

# Seconds of processor time. Mutants that take longer are not found reliably.
SEARCH_S = 60.0
FIRST_SEED = 18


@dataclass(frozen=True)
class Simulation:
    """The simulation of the whole daemon, for a number of CPU seconds, from a seed on."""

    seconds: float = SEARCH_S
    seed: int = FIRST_SEED

    def __str__(self) -> str:
        return "the simulation"


@dataclass(frozen=True)
class FailingTests:
    """Tests that have to fail, by their pytest names."""

    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.nodes)


@dataclass(frozen=True)
class Rig:
    """A test that makes its own mutant, and passes if it is found."""

    node: str

    def __str__(self) -> str:
        return self.node


Finder = Simulation | FailingTests | Rig


def tests(*nodes: str) -> FailingTests:
    """Tests below `tests/` that have to fail."""
    return FailingTests(tuple(f"tests/{node}" for node in nodes))


@dataclass(frozen=True)
class Change:
    """Replaces `old`, which occurs once in `module`, a file below `logengine/`, by `new`."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One bug in the engine.

    `wrong` describes it in a line. The `finders` run one after the other. `harmless` says why none
    can find it, if it breaks no promise: then it is not counted. `patched` names a
    mutant of the crash rig, which changes no text.
    """

    name: str
    wrong: str
    changes: tuple[Change, ...] = ()
    finders: tuple[Finder, ...] = (Simulation(),)
    harmless: str = ""
    patched: str = ""  # one of `tests.crash.rig.mutants`

    def __str__(self) -> str:
        return self.name
