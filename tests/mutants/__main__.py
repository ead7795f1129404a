"""The command: `python -m tests.mutants`, or `make mutants`.

Hunts each mutant, reports its finder, and lists those not found; exits with 1 if there are any.
An interrupted run continues where it stopped: a found mutant is not hunted again while the
engine and the mutant are unchanged.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import click

from tests.mutants.catalogue import MUTANTS
from tests.mutants.found import Found
from tests.mutants.hunt import SIMULATION, BrokenFinder, Caught, hunt
from tests.mutants.mutant import Mutant


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--seconds", type=float, help="How long the simulation searches, at most.")
@click.option("--list", "lists", is_flag=True, help="Lists the mutants, and hunts none.")
@click.option("--harmless", is_flag=True, help="Also hunts those that are harmless.")
@click.option(
    "--found",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=".mutants-found",
    show_default=True,
    help="Records what was found; without this file all are hunted.",
)
def main(
    only: Sequence[str],
    jobs: int,
    seconds: float | None,
    file: Path,
    *,
    lists: bool,
    harmless: bool,
) -> None:
    """Breaks the engine in one place at a time, and checks that a finder notices."""
    chosen = _chosen(only)
    if lists:
        for mutant in chosen:
            print(f"{mutant.name:42}{mutant.wrong}")
        return
    asked = [mutant for mutant in chosen if harmless or not mutant.harmless]
    found_before = Found(file)
    caught = {m.name: before for m in asked if (before := found_before.get(m)) is not None}
    if caught:
        print(f"{len(caught)} were found before; without {file} they are looked for again")
    left = [mutant for mutant in asked if mutant.name not in caught]
    with ThreadPoolExecutor(jobs) as pool:
        hunts = {pool.submit(hunt, mutant, seconds=seconds): mutant for mutant in left}
        try:
            for each in as_completed(hunts):
                mutant = hunts[each]
                try:
                    found = each.result()
                except BrokenFinder as error:
                    found = Caught("", str(error), 0.0)
                caught[mutant.name] = found
                if found.is_caught:
                    found_before.add(mutant, found)
                _print(mutant, found)
        finally:  # an interrupt does not wait for the rest
            pool.shutdown(cancel_futures=True)
    sys.exit(_report(asked, chosen, caught))


def _chosen(only: Sequence[str]) -> list[Mutant]:
    names = {mutant.name for mutant in MUTANTS}
    if unknown := [name for name in only if name not in names]:
        raise click.BadParameter(f"there is no mutant {unknown[0]!r}; --list names them")
    return [mutant for mutant in MUTANTS if not only or mutant.name in only]


def _print(mutant: Mutant, found: Caught) -> None:
    by = found.by or "nobody"
    print(f"{mutant.name:42}{by:38}{found.took_s:6.0f} s  {mutant.wrong}", flush=True)
    print(f"    {found.how}", flush=True)


def _report(asked: Sequence[Mutant], chosen: Sequence[Mutant], caught: dict[str, Caught]) -> int:
    counted = [mutant for mutant in asked if not mutant.harmless]
    missed = [mutant for mutant in counted if not caught[mutant.name].is_caught]
    harmless = [mutant for mutant in chosen if mutant.harmless]
    share = 1 - len(missed) / max(1, len(counted))
    print(f"\n{len(counted)} mutants, {len(counted) - len(missed)} caught: {share:.1%}")
    by_simulation = sum(caught[mutant.name].by == SIMULATION for mutant in counted)
    print(
        f"by the simulation {by_simulation}, by tests {len(counted) - len(missed) - by_simulation}"
    )
    for mutant in missed:
        print(f"not caught: {mutant.name}: {mutant.wrong}")
    for mutant in harmless:
        print(f"harmless: {mutant.name}: {mutant.wrong}; {mutant.harmless}")
    wrongly = [m for m in asked if m.harmless and caught[m.name].is_caught]
    for mutant in wrongly:
        print(f"not harmless: {mutant.name} was found: {caught[mutant.name].how}")
    return int(bool(missed or wrongly))


if __name__ == "__main__":
    main()
