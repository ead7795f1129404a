"""The soak itself: it runs, it is the same again under its seed, and it tells what it found."""

import re

import pytest
from click.testing import CliRunner

from tests.crash import soak


def test_a_short_soak_finds_nothing() -> None:
    result = CliRunner().invoke(soak.main, ["--minutes", "0.1", "--seed", "20261124"])
    assert result.exit_code == 0, result.output
    assert "seed 20261124" in result.output
    assert len(re.findall("round .* 0 violations", result.output)) > 0


def test_what_is_found_is_told_with_the_way_to_find_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(source: object) -> list[str]:
        return [f"drawn {source.random()}"]  # type: ignore[attr-defined]

    monkeypatch.setattr(soak, "ROUNDS", [broken])
    first = CliRunner().invoke(soak.main, ["--seed", "7"])
    assert first.exit_code == 1
    assert "again: python -m tests.crash.soak --seed 7 --round 1" in first.output
    again = CliRunner().invoke(soak.main, ["--seed", "7", "--round", "1"])
    assert re.findall("drawn.*", first.output) == re.findall("drawn.*", again.output)
