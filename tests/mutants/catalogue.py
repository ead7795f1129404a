"""All mutants."""

from tests.mutants import (
    committing,
    compacting,
    patched,
    pausing,
    reading,
    routing,
    sending,
    serving,
    sharing,
    storing,
    trusting,
    writing,
)
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *committing.MUTANTS,
    *pausing.MUTANTS,
    *storing.MUTANTS,
    *writing.MUTANTS,
    *compacting.MUTANTS,
    *serving.MUTANTS,
    *sharing.MUTANTS,
    *trusting.MUTANTS,
    *sending.MUTANTS,
    *routing.MUTANTS,
    *reading.MUTANTS,
    *patched.MUTANTS,
)
