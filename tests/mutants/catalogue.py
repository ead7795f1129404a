"""All mutants."""

from tests.mutants import committing, compacting, patched, sending, serving, storing, writing
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *committing.MUTANTS,
    *storing.MUTANTS,
    *writing.MUTANTS,
    *compacting.MUTANTS,
    *serving.MUTANTS,
    *sending.MUTANTS,
    *patched.MUTANTS,
)
