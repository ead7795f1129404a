"""What `docs/reading.md` shows runs against a daemon, and it names every argument and name."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import logengine
from tests.daemon import Daemon

PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
SENDING = re.findall(r"^\$ (.* \| logengine send .*)$", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 6


@pytest.fixture
def example_daemon(daemon: Daemon) -> Daemon:
    """A daemon with the records that the page's command sends."""
    (command,) = SENDING
    subprocess.run(
        ["bash", "-c", command],
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LOGENGINE_SOCKET": str(daemon.socket),
        },
        timeout=60,
        check=True,
    )
    return daemon


@pytest.mark.parametrize(("example", "printed"), EXAMPLES)
def test_an_example_prints_what_the_page_says(
    example_daemon: Daemon, example: str, printed: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        env=os.environ
        | {
            "LOGENGINE_DATA": str(example_daemon.data),
            "LOGENGINE_SOCKET": str(example_daemon.socket),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_the_page_names_every_argument() -> None:
    for function in (logengine.read, logengine.follow):
        for name in inspect.signature(function).parameters:
            assert f"`{name}`" in PAGE, name


def test_the_page_names_what_a_record_and_a_problem_have() -> None:
    for kind in (logengine.Record, logengine.Problem, logengine.Gone):
        for name in [name for name in dir(kind) if not name.startswith("_")]:
            assert f"`{name}`" in PAGE, name
