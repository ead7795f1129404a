"""What `docs/atomic.md` shows runs, and it names every argument and every step."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from logengine import AsyncAtomicWriter, AtomicWriter

PAGE = (Path(__file__).parents[2] / "docs" / "atomic.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LEFT = [
    ["settings.json"],
    ["report.txt"],
    ["job-7.result"],
    ["one", "two"],
    ["notes.txt"],
]


@pytest.mark.parametrize(("example", "left"), list(zip(EXAMPLES, LEFT, strict=True)))
def test_an_example_runs_twice_and_leaves_its_file(
    tmp_path: Path, example: str, left: list[str]
) -> None:
    for run in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(tmp_path)) == left
        is_second = run == 1 and "another worker was first" in example
        assert done.stdout == ("another worker was first\n" if is_second else "")


def test_the_page_names_every_argument_and_every_step() -> None:
    for writer in (AtomicWriter, AsyncAtomicWriter):
        for name in inspect.signature(writer).parameters:
            assert f"`{name}`" in PAGE, name
    for step in ("open", "write", "prepare", "publish", "sync_directory", "abort"):
        assert f"| `{step}(" in PAGE
        assert callable(getattr(AtomicWriter, step))
