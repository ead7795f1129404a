"""Checks that each mutant still applies, and that some are found; `make mutants` checks all."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.committing import LOSS
from tests.mutants.found import Found
from tests.mutants.hunt import BrokenFinder, Caught, hunt
from tests.mutants.mutant import Change, FailingTests, Mutant, Rig
from tests.mutants.tree import ROOT, UnknownText, changed, changed_modules

_FEWEST = 60
_BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
_QUICK = ("acked_though_failed", "returned_in_reverse", "numbers_not_used", "closed_before_the_ack")


def test_each_mutant_changes_the_engine_as_it_is_into_something_that_compiles() -> None:
    for mutant in MUTANTS:
        for module, text in changed_modules(mutant.changes).items():
            compile(text, f"{module} of {mutant.name}", "exec")
            assert text != (ROOT / "logengine" / module).read_text()
        assert bool(mutant.changes) != bool(mutant.patched)


def test_each_mutant_has_a_name_of_its_own_and_there_are_enough() -> None:
    assert not [name for name, count in Counter(m.name for m in MUTANTS).items() if count > 1]
    assert sum(not mutant.harmless for mutant in MUTANTS) >= _FEWEST
    assert MUTANTS[0].changes == LOSS.changes


def test_the_tests_that_are_to_find_mutants_are_there() -> None:
    for mutant in MUTANTS:
        for finder in mutant.finders:
            nodes = finder.nodes if isinstance(finder, FailingTests) else []
            for node in [finder.node] if isinstance(finder, Rig) else nodes:
                file, _, test = node.partition("::")
                assert (ROOT / file).is_file(), f"{mutant.name}: {node}"
                assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text() or not test


def test_text_that_is_not_in_the_engine_once_is_no_mutant() -> None:
    for old in ("x", "z"):
        with pytest.raises(UnknownText, match="and not once"):
            changed("x = x + y", Change("store/store.py", old, "0"))


def test_a_test_that_the_engine_as_it_is_fails_too_finds_no_mutant(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_failing():\n    raise OSError\n")
    finder = FailingTests((str(failing),))
    with pytest.raises(BrokenFinder, match="the engine as it is fails as well"):
        hunt(replace(LOSS, finders=(finder,)))


def test_what_was_found_is_known_to_the_next_run_unless_the_mutant_is_another(
    tmp_path: Path,
) -> None:
    file = tmp_path / "found"
    caught = Caught("simulation", "seed 18: lost", 1.5)
    Found(file).add(LOSS, caught)
    found = Found(file)
    assert found.get(LOSS) == caught
    assert found.get(replace(LOSS, changes=LOSS.changes[:0])) is None
    assert found.get(_BY_NAME[_QUICK[0]]) is None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", [_BY_NAME[name] for name in _QUICK], ids=str)
def test_the_simulation_finds(mutant: Mutant) -> None:
    found = hunt(mutant)
    assert found.by == "simulation", f"not found: {mutant.wrong}; {found.how}"
