"""Runs in a mutant's own tree: `python -m tests.mutants.child simulate | pytest`.

Exits with 0 if nothing was found, and with 1 if something was, and prints the seed.
"""

import contextlib
import sys
import time
from pathlib import Path

import logengine

FOUND = 1
SAYS = "seed "


def main() -> int:
    """The command."""
    here = Path.cwd()
    assert Path(logengine.__file__).is_relative_to(here), f"{logengine.__file__}: not in {here}"
    what, *arguments = sys.argv[1:]
    if what == "simulate":
        seconds, seed, *patched = arguments
        return _simulate(float(seconds), int(seed), *patched)
    import pytest

    return int(pytest.main(arguments))


def _simulate(seconds: float, seed: int, patched: str = "") -> int:
    from tests.crash.rig import mutants
    from tests.simulation.scenario import Scenario
    from tests.simulation.search import run

    mutant = getattr(mutants, patched) if patched else contextlib.nullcontext
    began_s = time.process_time()
    with mutant():
        while True:
            found: object
            try:
                found, _ = run(Scenario.drawn(seed))
            except Exception as error:  # noqa: BLE001 - an error of the engine counts as found
                found = f"the engine raised {error!r}"
            if found is not None:
                print(f"{SAYS}{seed} {found}")
                return FOUND
            seed += 1
            if time.process_time() - began_s >= seconds:
                break
    print(f"{SAYS}{seed} nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
