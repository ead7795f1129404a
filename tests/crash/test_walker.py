"""The walking reader judges what it finds, and does not fall over what goes meanwhile."""

import shutil
from pathlib import Path

import pytest

from tests.crash.rig.walker import fault_of, segments_under

NAME = "00000000000000000001.ndjson"


def test_a_directory_that_goes_while_others_are_looked_at_is_passed_over(tmp_path: Path) -> None:
    for stream in ("app", "web"):
        (tmp_path / stream).mkdir()
        (tmp_path / stream / NAME).touch()
    (tmp_path / ".lock").touch()
    found = segments_under(tmp_path)
    first = next(found)
    assert first.name == NAME
    shutil.rmtree(tmp_path / ({"app", "web"} - {first.parent.name}).pop())
    assert list(found) == []


@pytest.mark.parametrize("content", [b"{\n", b"[]\n", b"{}\n", b"\xff\n", b"\0\0\n"])
def test_what_is_no_header_is_told_as_a_fault(content: bytes) -> None:
    assert fault_of(Path("app") / NAME, content)
