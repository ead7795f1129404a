"""What `docs/clients.md` says becomes of values, and that it names every option."""

import datetime  # noqa: ICN001 - as the page has it
import inspect
import json
import re
from pathlib import Path

import pytest

from logengine import Client
from logengine.client.encoding import encode_record

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
TABLE = PAGE.partition("| you send | is stored as |")[2].partition("\n\n")[0]
ROWS = re.findall(r"^\| `(.+)` \| `(.+)` \|$", TABLE, re.MULTILINE)


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
