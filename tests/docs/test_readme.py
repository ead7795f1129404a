"""Every command of the README's tour runs, and prints what the README says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from logengine.cli import cli
from logengine.daemon.config import parse_config
from tests.daemon import Daemon

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
MARK = "-- end of command, status"
# A newcomer reads it at one sitting.
LINES_OF_ARCHITECTURE_MAX = 150


def tour() -> list[tuple[str, str]]:
    """Commands, and what is printed after them."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            steps.append((command, output))
    return steps


def masked(text: str) -> str:
    """`text` without what differs from run to run: times, pids, sizes, and padding."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME", text)
    text = re.sub(r"\[\d+\]", "[PID]", text)
    text = re.sub(r'"bytes":\d+', '"bytes":N', text)
    text = re.sub(r"\b[\d.]+(B|KiB)\b", "SIZE", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


@pytest.mark.disk
def test_the_tour_prints_what_it_says(root: Path) -> None:
    steps = tour()
    assert len(steps) > 10
    script = "set -m\n" + "\n".join(
        # What is started with & is waited for, as a person does before typing on.
        f"{command}\n{'status=$?; sleep 1' if command.endswith('&') else 'status=$?'}\n"
        f"echo; echo {MARK} $status"
        for command, _ in steps
    )
    done = subprocess.run(
        ["bash", "-s"],
        input=script + "\nkill $(jobs -p)\n",
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    printed = re.split(rf"\n{MARK} (\d+)\n", done.stdout)
    for (command, expected), output, status in zip(
        steps, printed[::2], printed[1::2], strict=False
    ):
        assert status == "0" or command.startswith("wait"), (command, output, done.stderr)
        assert masked(output) == masked(expected), command
    assert len(printed[1::2]) == len(steps)


def test_the_programs_send_and_read_the_records_that_are_shown(daemon: Daemon) -> None:
    pairs = re.findall(r"```python\n(.*?)```\n```json\n(.*?)```", README, re.DOTALL)
    assert len(pairs) == 3
    for program, shown in pairs:
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            timeout=60,
            env=os.environ | {"LOGENGINE_SOCKET": str(daemon.socket)},
        )
        record = json.loads(shown)
        assert {name: daemon.values("shop")[-1].get(name) for name in record} == record
    (reading,) = re.findall(r"```python\n([^`]*logengine\.read\(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", reading],
        check=True,
        capture_output=True,
        timeout=60,
        env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
    )
    assert re.fullmatch(rb"\S+Z order 7 placed\n", done.stdout)


def test_the_readme_names_every_command() -> None:
    for command in cli.list_commands(None):  # type: ignore[arg-type]
        assert f"| `logengine {command}` |" in README


def test_the_two_commands_are_on_the_first_screen() -> None:
    first_screen = README.splitlines()[:30]
    assert any(line.startswith("make run") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


PAGES = sorted(
    str(page.relative_to(PROJECT))
    for page in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"))
)
PAGES_ABOUT_THE_CODE = [
    page
    for page in PAGES
    if page.startswith("docs/decisions")
    or page in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/testing.md")
]


def anchors(text: str) -> set[str]:
    """What a link into a page may have behind its `#`: its headings, as GitHub has them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (PROJECT / page).read_text()
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        found = (PROJECT / page).parent / target if target else PROJECT / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES_ABOUT_THE_CODE)
def test_tests_and_files_that_a_page_names_are_there(page: str) -> None:
    # What is to be written by whoever follows a recipe has a NAME.
    text = re.sub(r"`[^`]*\bNAME\b[^`]*`|`[^`]*test_NAME[^`]*`", "", (PROJECT / page).read_text())
    tests = "".join(path.read_text() for path in (PROJECT / "tests").rglob("*.py"))
    for name in set(re.findall(r"\btest_\w+\b", text)):
        assert f"def {name}(" in tests or list((PROJECT / "tests").rglob(f"{name}.py")), name
    for path in set(re.findall(r"\b(?:tests|logengine|config)/[\w/]+(?:\.\w+)?", text)):
        assert (PROJECT / path).exists() or (PROJECT / f"{path}.py").exists(), path


def test_the_architecture_has_a_place_for_every_module() -> None:
    quoted = " ".join(re.findall(r"`[^`\n]+`", (PROJECT / "ARCHITECTURE.md").read_text()))
    package = PROJECT / "logengine"
    of_a_command = {name.replace("-", "_") for name in cli.list_commands(None)}  # type: ignore[arg-type]
    for path in package.rglob("*.py"):
        is_command = path.parent.name == "cli" and path.stem.rstrip("_") in of_a_command
        if not path.stem.startswith("__") and not is_command:
            assert re.search(rf"\b{path.stem}\b", quoted), path.relative_to(package)


def test_the_architecture_is_short() -> None:
    assert len((PROJECT / "ARCHITECTURE.md").read_text().splitlines()) <= LINES_OF_ARCHITECTURE_MAX


def test_the_configuration_that_is_shown_is_right() -> None:
    shown = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown
    for text in shown:
        parse_config(text, "README.md")
