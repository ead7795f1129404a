"""`logengine send 'a message' KEY=VALUE…`, as `logger` is used."""

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from logengine.cli.message_arguments import is_message, message_record
from tests.daemon import Daemon


def test_a_message_becomes_one_record_with_its_fields(daemon: Daemon) -> None:
    daemon.cli("send", "the disk is\nnearly full", "level=warning", "percent=91", "host=web=1")
    daemon.cli("send", "-m", "deployed")
    daemon.cli("send", "restarted", "ok=true", "-s", "default")
    assert daemon.values() == [
        {
            "message": "the disk is\nnearly full",
            "level": "warning",
            "percent": 91,
            "host": "web=1",
        },
        {"message": "deployed"},
        {"message": "restarted", "ok": True},
    ]


def test_a_mistyped_name_of_a_file_is_an_error_that_names_the_option(daemon: Daemon) -> None:
    for arguments in (["acess.log"], ["acess.log", "error.log"], ["user=ann"]):
        done = daemon.cli("send", *arguments, status=2)
        assert b"does not exist" in done.stderr
        assert b"-m/--message TEXT" in done.stderr
    assert not (daemon.data / "default").exists()


def test_the_name_of_a_file_that_exists_is_never_a_message(daemon: Daemon, root: Path) -> None:
    path = root / "two words"
    path.write_text("a line\n")
    daemon.cli("send", str(path))
    daemon.cli("send", "-", stdin=b"piped\n")
    daemon.cli("send", "-m", str(path))
    assert daemon.values() == [
        {"message": "a line"},
        {"message": "piped"},
        {"message": str(path)},
    ]


def test_a_message_has_no_input_to_resume(daemon: Daemon) -> None:
    assert b"--resume" in daemon.cli("send", "-m", "x", "--resume", "name", status=2).stderr


def record(text: str, *fields: str) -> dict[str, Any]:
    return json.loads(message_record(text, fields))  # type: ignore[no-any-return]


def test_a_value_is_a_string_unless_it_prints_again_as_it_was_written() -> None:
    made = record("m", "a=1", "b=1.50", "c=0x1", "d=false", "e=", "f=007", "g=-2.5", "h=null")
    assert made == {
        "a": 1,
        "b": "1.50",
        "c": "0x1",
        "d": False,
        "e": "",
        "f": "007",
        "g": -2.5,
        "h": "null",
        "message": "m",
    }


@pytest.mark.parametrize("field", ["no pair", "=x", "a b=c", "", "message=x"])
def test_what_follows_a_message_is_a_pair_with_a_key_of_its_own(field: str) -> None:
    with pytest.raises(click.UsageError):
        message_record("m", [field])
    with pytest.raises(click.UsageError, match="two values"):
        message_record("m", ["a=1", "a=2"])


def test_bytes_that_are_not_text_are_kept_readable() -> None:
    assert record(os.fsdecode(b"a \xff"), os.fsdecode(b"k\xff=\xfe")) == {
        "message": "a \\xff",
        "k\\xff": "\\xfe",
    }
    assert is_message([os.fsdecode(b"a \xff")])
