"""Shorthands for writing mutants."""

from tests.mutants.mutant import Change, Finder, Mutant, Simulation

_SIMULATION = (Simulation(),)


def mutant(
    name: str,
    wrong: str,
    module: str,
    old: str,
    new: str,
    *finders: Finder,
    harmless: str = "",
) -> Mutant:
    """A mutant of one change, which the simulation has to find, unless finders are named."""
    return Mutant(name, wrong, (Change(module, old, new),), finders or _SIMULATION, harmless)


def then(mutants: tuple[Mutant, ...], *finders: Finder) -> tuple[Mutant, ...]:
    """The same mutants; `finders` also search for those that only the simulation had to find."""
    return tuple(
        Mutant(m.name, m.wrong, m.changes, (*m.finders, *finders), m.harmless, patched=m.patched)
        if m.finders == _SIMULATION
        else m
        for m in mutants
    )
