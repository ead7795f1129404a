"""Changes the engine's text in a separate tree: processes that a test starts have it, too."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.mutant import Change

ROOT = Path(__file__).parents[2]
_PARTS = ("logengine", "tests", "benchmarks", "examples", "docs", "config", "systemd")
_FILES = ("pyproject.toml", "README.md", "Makefile")


class UnknownText(Exception):
    """The text to change is not in the engine, or occurs more than once."""


def changed(text: str, change: Change) -> str:
    """`text` after one change. Raises `UnknownText` unless the old text occurs once."""
    found = text.count(change.old)
    if found != 1:
        raise UnknownText(
            f"{change.module} has {found} times, and not once:\n{change.old}\n"
            "the engine has changed: change the mutant likewise, or take it out"
        )
    return text.replace(change.old, change.new)


def changed_modules(changes: Sequence[Change], root: Path = ROOT) -> dict[str, str]:
    """The text of each changed module after all `changes`."""
    texts: dict[str, str] = {}
    for change in changes:
        text = texts.get(change.module)
        if text is None:
            text = (root / "logengine" / change.module).read_text()
        texts[change.module] = changed(text, change)
    return texts


@contextlib.contextmanager
def tree_with(changes: Sequence[Change]) -> Iterator[Path]:
    """A copy of engine and tests in which the engine is changed."""
    texts = changed_modules(changes)
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        tree = Path(name)
        for part in _PARTS:
            shutil.copytree(ROOT / part, tree / part, symlinks=True)
        for file in _FILES:
            shutil.copy2(ROOT / file, tree / file)
        for module, text in texts.items():
            (tree / "logengine" / module).write_text(text)
        yield tree
