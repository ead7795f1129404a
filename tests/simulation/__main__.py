"""The command: `python -m tests.simulation --minutes 10 --seed 1`, or `make sim`.

Runs scenarios until time is up, and reports what ran and which states occurred. If a promise
is broken, it shrinks the scenario, prints the command that replays it, and exits with 1.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import click

from tests.simulation.scenario import Scenario
from tests.simulation.search import Outcome, explore, run
from tests.simulation.shrink import Kept, shrink
from tests.simulation.world import Counts

FIXED_SEED = 18
_SEED_BITS = 40
_JOBS_APART = 1 << 48
_SHRINK_S = 60.0
_REPORT_EVERY_S = 60.0


def seed_of_commit() -> int:
    """A seed that is specific to the commit; a fixed one without git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return FIXED_SEED
    return int(found.stdout.strip()[:10], 16)


@click.command()
@click.option("--minutes", type=float, default=1.0, show_default=True, help="For how long.")
@click.option("--seed", default=None, help="A number, or `commit` for one specific to this commit.")
@click.option("--jobs", type=int, default=1, show_default=True, help="How many processes.")
@click.option("--replay", type=int, help="Runs the scenario of this seed, and prints its log.")
@click.option("--keep", default=None, help="Its parts to keep, as a failing run prints them.")
def main(minutes: float, seed: str | None, jobs: int, replay: int | None, keep: str | None) -> None:
    """Simulates the whole daemon, from one seed."""
    _fix_hashes()
    if replay is not None:
        sys.exit(_replay(replay, keep))
    first = secrets.randbits(_SEED_BITS) if seed is None else _parse(seed)
    print(f"seed {first}, {minutes:g} minutes, {jobs} processes", flush=True)
    began = time.perf_counter()
    seeds = [first + job * _JOBS_APART for job in range(jobs)]
    if jobs == 1:
        outcomes = [explore(minutes * 60, first)]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(explore, [minutes * 60] * jobs, seeds))
    took_s = time.perf_counter() - began
    _report(outcomes, took_s)
    found = [outcome.found for outcome in outcomes if outcome.found is not None]
    for each in found:
        print(f"\nbroken: {each.violation}")
        print("made small:", flush=True)
        _print_small(each.scenario, each.violation.rule)
    sys.exit(bool(found))


def _fix_hashes() -> None:
    """Restarts with fixed hashes, if the order of sets would differ between processes."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        arguments = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, arguments, environ)


def _parse(seed: str) -> int:
    if seed == "commit":
        return seed_of_commit()
    try:
        return int(seed)
    except ValueError:
        raise click.BadParameter(f"{seed!r} is neither a number nor `commit`") from None


def _print_small(scenario: Scenario, rule: str) -> None:
    kept = shrink(scenario, rule, lambda smaller: run(smaller)[0], _SHRINK_S)
    small = kept.of(scenario)
    for part in ("senders", "faults", "spaces", "events"):
        for each in getattr(small, part):
            print(f"  {each}")
    print("to run it again:")
    print(f"  python -m tests.simulation --replay {scenario.seed} --keep '{kept}'")


def _replay(seed: int, keep: str | None) -> int:
    scenario = Scenario.drawn(seed)
    if keep is not None:
        scenario = Kept.parse(keep).of(scenario)
    violation, world = run(scenario)
    for at_s, level, event, fields in world.log:
        print(f"{at_s:10.5f} {level:8} {event} {fields}")
    print(f"broken: {violation}" if violation else "all promises held")
    return violation is not None


def _report(outcomes: Sequence[Outcome], took_s: float) -> None:
    total = Outcome()
    for outcome in outcomes:
        total.counts.add(outcome.counts)
        total.coverage.update(outcome.coverage)
    print_counts(total.counts, took_s)
    print("\n".join(total.coverage.report()))


def print_counts(counts: Counts, took_s: float) -> None:
    """Prints how much ran, and how fast."""
    for name, value in vars(counts).items():
        if name == "faults":
            continue
        rate = f"{value / took_s:14,.0f} a second" if took_s else ""
        print(f"{name:14}{value:16,.0f}{rate}")
    print("faults:")
    for kind, count in sorted(counts.faults.items()):
        print(f"  {kind:30}{count:10,}")


if __name__ == "__main__":
    main()
