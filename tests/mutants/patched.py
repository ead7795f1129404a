"""The mutants of the crash rig, which are patches: the simulation runs first."""

from collections.abc import Sequence

from tests.crash.rig import mutants
from tests.mutants.mutant import Mutant, Rig, Simulation

_RIG = "tests/crash/test_rig.py::"
_RESTARTS = "tests/crash/test_restart.py::"
# For those that the rig is known to find.
_SEARCH_S = 20.0


def _by(node: str, patches: Sequence[mutants.Mutant]) -> tuple[Mutant, ...]:
    """Mutants that a parametrized test of the rig finds, each by its own case."""
    return tuple(
        Mutant(
            f"rig_{_name(patch)}",
            (patch.__doc__ or "").splitlines()[0],
            finders=(Simulation(_SEARCH_S), Rig(f"{node}[{_name(patch)}]")),
            patched=_name(patch),
        )
        for patch in patches
    )


def _name(patch: mutants.Mutant) -> str:
    return str(getattr(patch, "__name__", patch))


MUTANTS = (
    *_by(f"{_RIG}test_power_cuts_catch", mutants.CAUGHT_BY_CUTS),
    *_by(
        f"{_RIG}test_power_cuts_of_one_flush_catch",
        mutants.CAUGHT_BY_CUTS_OF_ONE_FLUSH,
    ),
    *_by(f"{_RIG}test_many_power_cuts_catch", mutants.CAUGHT_BY_MANY_CUTS),
    *_by(f"{_RIG}test_faults_catch", mutants.CAUGHT_BY_FAULTS),
    *_by(
        f"{_RIG}test_power_cuts_beside_a_retention_catch",
        mutants.CAUGHT_BY_CUTS_OF_RETENTION,
    ),
    *_by(f"{_RIG}test_faults_beside_a_retention_catch", mutants.CAUGHT_BY_FAULTS_OF_RETENTION),
    *_by(f"{_RIG}test_full_disks_that_take_the_oldest_catch", mutants.CAUGHT_BY_FULL_DISKS),
    *_by(f"{_RESTARTS}test_restarts_catch", mutants.CAUGHT_BY_RESTARTS),
    *_by(
        f"{_RESTARTS}test_restarts_beside_a_retention_catch",
        mutants.CAUGHT_BY_RESTARTS_BESIDE_A_RETENTION,
    ),
)
