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
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text)
    text = re.sub(r"\[\d+\]", "[PID]", text)
    text = re.sub(r'"bytes":\d+', '"bytes":N', text)
    text = re.sub(r"\b[\d.]+(B|KiB)\b", "SIZE", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


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


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", *map(str, Path("docs").glob("*"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (PROJECT / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (PROJECT / page).parent.joinpath(target).exists(), target


def test_tests_that_the_architecture_names_are_there() -> None:
    named = set(re.findall(r"\btest_\w+\b", (PROJECT / "ARCHITECTURE.md").read_text()))
    tests = "".join(path.read_text() for path in (PROJECT / "tests").rglob("*.py"))
    for name in named:
        assert f"def {name}(" in tests or list((PROJECT / "tests").rglob(f"{name}.py")), name


def test_the_configuration_that_is_shown_is_right() -> None:
    shown = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown
    for text in shown:
        parse_config(text, "README.md")
