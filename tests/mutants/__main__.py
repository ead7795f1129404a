"""The command: `python -m tests.mutants`, or `make mutants`.

Looks for each mutant, says who found it, and which nobody did; ends with 1 if there are any.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import click

from tests.mutants.catalogue import MUTANTS
from tests.mutants.hunt import BrokenFinder, Caught, hunt
from tests.mutants.mutant import Mutant


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="These alone; may be given again.")
@click.option("--jobs", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--seconds", type=float, help="For how long the simulation searches, at most.")
@click.option("--list", "lists", is_flag=True, help="Names them, and looks for none.")
@click.option("--harmless", is_flag=True, help="Looks for those that harm nobody, too.")
def main(
    only: Sequence[str], jobs: int, seconds: float | None, *, lists: bool, harmless: bool
) -> None:
    """Breaks the engine in one place at a time, and sees that it is found."""
    chosen = _chosen(only)
    if lists:
        for mutant in chosen:
            print(f"{mutant.name:42}{mutant.wrong}")
        return
    asked = [mutant for mutant in chosen if harmless or not mutant.harmless]
    caught: dict[str, Caught] = {}
    with ThreadPoolExecutor(jobs) as pool:
        hunts = {pool.submit(hunt, mutant, seconds=seconds): mutant for mutant in asked}
        for each in as_completed(hunts):
            mutant = hunts[each]
            try:
                found = each.result()
            except BrokenFinder as error:
                found = Caught("", str(error), 0.0)
            caught[mutant.name] = found
            _print(mutant, found)
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
