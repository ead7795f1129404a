"""A directory that is no data directory is named, instead of being read as an empty one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import logengine
from logengine.cli import cli
from logengine.errors import UnknownStream
from tests.reading.streams import line, write_stream


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A directory of something else, with directories that have names of streams."""
    directory = tmp_path / "etc"
    (directory / "apt").mkdir(parents=True)
    (directory / "passwd").write_text("root\n")
    return directory


@pytest.mark.parametrize(
    "command",
    [
        *("cat", "cat apt", "tail", "tail -f", "ls", "count", "fields", "patterns", "verify"),
        *("seals", "backup copy", "export -", "erase apt --until 2020-01-01", "retain"),
        *("query SELECT", "web --port 0"),
    ],
)
def test_a_command_names_a_directory_of_something_else(other: Path, command: str) -> None:
    with pytest.raises(UnknownStream, match=f"{other} is not a data directory.* --data") as raised:
        cli.main([*command.split(), "--data", str(other)], standalone_mode=False)
    assert "\n" not in str(raised.value)
    assert sorted(each.name for each in other.iterdir()) == ["apt", "passwd"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda data: logengine.read(data=data),
        lambda data: logengine.follow(data=data),
        lambda data: logengine.streams(data=data),
    ],
)
def test_so_does_the_reading_api(other: Path, ask: Callable[[Path], Any]) -> None:
    with pytest.raises(UnknownStream, match="is not a data directory"):
        ask(other)


def test_a_directory_that_may_become_one_has_no_streams_yet(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()  # a new volume
    assert logengine.streams(data=tmp_path) == []
    logengine.follow(data=tmp_path / "missing")


def test_one_that_is_not_there_as_a_directory_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    logengine.follow(data=tmp_path / "file")


def test_one_without_records_yet_has_the_lock_of_its_daemon(other: Path) -> None:
    (other / ".lock").touch()
    assert [each.stream for each in logengine.streams(data=other)] == ["apt"]


def test_a_copy_of_streams_is_one_without_a_lock(other: Path) -> None:
    write_stream(other, "web", [line(1)])
    assert [record.seq for record in logengine.read("web", data=other)] == [1]


def test_one_without_a_lock_has_streams_that_are_still_empty(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert [each.stream for each in logengine.streams(data=tmp_path)] == ["app"]
    (tmp_path / "app" / "passwd").touch()
    with pytest.raises(UnknownStream, match="is not a data directory"):
        logengine.streams(data=tmp_path)
