"""All mutants."""

from tests.mutants import committing, compacting, serving, storing, writing
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *committing.MUTANTS,
    *storing.MUTANTS,
    *writing.MUTANTS,
    *compacting.MUTANTS,
    *serving.MUTANTS,
)
