"""What `docs/clients.md` shows runs, values become what it says, and it names every option."""

import datetime  # noqa: ICN001 - as the page has it
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from logengine import Client
from logengine.client.encoding import encode_record
from tests.daemon import Daemon

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
TABLE = PAGE.partition("| you send | is stored as |")[2].partition("\n\n")[0]
ROWS = re.findall(r"^\| `(.+)` \| `(.+)` \|$", TABLE, re.MULTILINE)
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_examples_run_as_they_are_and_send_their_records(daemon: Daemon) -> None:
    for example in EXAMPLES:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            env=os.environ | {"LOGENGINE_SOCKET": str(daemon.socket)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), example
    events = [value.get("event") or value["message"] for value in daemon.values("web")]
    assert events == ["order 7", "order", "started", "started"]


@pytest.mark.parametrize(("expression", "stored"), ROWS)
def test_a_value_becomes_what_the_page_says(expression: str, stored: str) -> None:
    value = eval(expression, {"datetime": datetime})
    assert encode_record({"v": value}) == f'{{"v":{stored}}}\n'.encode()
    json.loads(stored)


def test_the_page_has_a_table_of_values() -> None:
    assert len(ROWS) >= 8


def test_the_page_names_every_option() -> None:
    for option in inspect.signature(Client.__init__).parameters:
        if option not in ("self", "drains_orphan"):
            assert f"`{option}`" in PAGE, option
