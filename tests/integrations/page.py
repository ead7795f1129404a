"""The recipes of `docs/integrations.md`, as they are on the page."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()
DIRECTORY = "/run/logengine"  # of the sockets, on the page
ANYTHING = "…"
NOT_RUN = "The tests do not run"


@dataclass(frozen=True)
class Recipe:
    """A section of the page, with the sockets in `directory`."""

    text: str
    directory: Path

    def code(self, language: str) -> str:
        """Its only block in this language."""
        (block,) = re.findall(rf"^```{language}\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        return str(block).replace(DIRECTORY, str(self.directory))

    def records(self) -> list[dict[str, Any]]:
        """What is stored then, without the envelope."""
        blocks = re.findall(r"^```json\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        return [json.loads(line) for block in blocks for line in block.splitlines()]


def sections() -> dict[str, str]:
    """The text of each section, by its heading."""
    parts = re.split(r"^###? (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def recipe(heading: str, directory: Path) -> Recipe:
    """The recipe under this heading."""
    return Recipe(sections()[heading], directory)


def is_as_shown(found: Any, shown: Any) -> bool:
    """Whether it is what the page shows: `…` stands for any text, value or further fields."""
    if isinstance(shown, dict) and isinstance(found, dict):
        wanted = {key: shown[key] for key in shown if key != ANYTHING}
        return all(key in found and is_as_shown(found[key], wanted[key]) for key in wanted) and (
            ANYTHING in shown or found.keys() == wanted.keys()
        )
    if isinstance(shown, str) and isinstance(found, str):
        pattern = re.escape(shown).replace(re.escape(ANYTHING), ".*")
        return re.fullmatch(pattern, found, re.DOTALL) is not None
    return bool(shown == ANYTHING or (type(shown) is type(found) and shown == found))
