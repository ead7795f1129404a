"""All mutants."""

from tests.mutants import (
    committing,
    compacting,
    following,
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
    *following.MUTANTS,
    *patched.MUTANTS,
)
