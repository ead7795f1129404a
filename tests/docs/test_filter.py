"""What `docs/filter.md` says of expressions is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from logengine.filtering.levels import LEVELS, is_level_field, rank_of_number
from logengine.filtering.syntax import CHARACTERS_MAX, NESTING_MAX
from logengine.reading.filter import Where

PAGE = (Path(__file__).parents[2] / "docs" / "filter.md").read_text()
(RECORD,) = re.findall(r"^```json\n(.*)\n```", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"^\| `(.+)` \| (yes|no) \|$", PAGE, re.MULTILINE)
CONDITIONS = PAGE.partition("## Conditions")[2].partition("`not` binds")[0]
LISTED = re.findall(r"^\| `([^`]+ [^`]+)`", CONDITIONS, re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 20
    assert len(LISTED) >= 9


@pytest.mark.parametrize(("expression", "selected"), EXAMPLES)
def test_an_example_selects_what_the_page_says(expression: str, selected: str) -> None:
    assert Where(expression).holds(RECORD.encode()) == (selected == "yes")


@pytest.mark.parametrize("condition", LISTED)
def test_a_condition_of_the_table_is_one(condition: str) -> None:
    Where(condition)


def test_the_page_has_all_levels_and_what_numbers_mean() -> None:
    for names in LEVELS:
        assert f"| {names[0]} | {', '.join(names)} |" in PAGE
    for fields, numbers in re.findall(
        r"^\| (`priority`.*|`level.*|`sever.*) \| (.+) \|$", PAGE, re.MULTILINE
    ):
        for field in re.findall(r"`(\w+)`", fields):
            assert is_level_field(field)
            for number, name in re.findall(r"(\d+) ([a-z]+)", numbers.replace("0 to 7", "")):
                if name in [each[0] for each in LEVELS]:
                    rank = rank_of_number(int(number), field)
                    assert rank is not None, (field, number)
                    assert LEVELS[rank][0] == name, (field, number)


def test_the_page_has_the_limits() -> None:
    assert f"{CHARACTERS_MAX:,} characters; {NESTING_MAX} levels" in PAGE


def test_the_mistake_that_is_shown_is_shown_so(tmp_path: Path) -> None:
    ((command, shown),) = re.findall(r"\$ logengine (cat --where '[^']*')\n([^`]*)```", PAGE)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m logengine {command} --data {tmp_path}"],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", shown)
