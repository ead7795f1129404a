"""Names in a stream's directory: removed one by one, durably, or noted as in doubt."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import Directory
from logengine.disk.durable_names import DurableNames, remove_covered
from logengine.errors import AtomicWriteError


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "app").mkdir()
    with Directory.open(tmp_path / "app") as opened:
        yield opened


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is removed and synced, in its order."""
    made: list[str] = []
    unlink, fsync = os.unlink, os.fsync

    def noted_unlink(name: str, *, dir_fd: int) -> None:
        made.append(f"unlink {name}")
        unlink(name, dir_fd=dir_fd)

    def noted_fsync(descriptor: int) -> None:
        made.append("fsync")
        fsync(descriptor)

    monkeypatch.setattr(os, "unlink", noted_unlink)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    return made


def failing(*_: Any) -> None:
    raise OSError(errno.EIO, "injected")


def write(directory: Directory, *names: str) -> None:
    for name in names:
        os.close(directory.open_file(name, os.O_CREAT | os.O_WRONLY))


def test_a_removal_is_synced_before_it_returns(directory: Directory, calls: list[str]) -> None:
    write(directory, "a")
    assert DurableNames(failing).remove(directory, "a")
    assert calls == ["unlink a", "fsync"]


def test_what_somebody_else_removed_is_synced_too(directory: Directory, calls: list[str]) -> None:
    assert not DurableNames(failing).remove(directory, "a")
    assert calls == ["unlink a", "fsync"]


def test_what_may_go_in_any_order_goes_with_one_sync(
    directory: Directory, calls: list[str]
) -> None:
    write(directory, "a", "b")
    DurableNames(failing).remove_together(directory, ["a", "b"])
    assert calls == ["unlink a", "unlink b", "fsync"]


def test_covered_segments_go_from_the_newest_on_without_a_sync(
    directory: Directory, calls: list[str]
) -> None:
    write(directory, "a", "b", "c")
    spent: list[int] = []
    remove_covered(directory, ["b", "gone", "a"], spent.append)
    assert calls == ["unlink gone", "unlink b", "unlink a"]
    assert directory.names() == ["c"]
    assert len(spent) == 3


def test_a_removal_is_reported_before_a_sync_that_may_fail(
    directory: Directory, calls: list[str]
) -> None:
    write(directory, "a", "b")
    names = DurableNames(failing)
    names.remove(directory, "a", lambda: calls.append("told"))
    assert calls == ["unlink a", "told", "fsync"]
    calls.clear()
    assert not names.remove(directory, "a", lambda: calls.append("told"))
    assert calls == ["unlink a", "fsync"]
    calls.clear()
    with pytest.raises(BrokenPipeError):
        names.remove(directory, "b", Mock(side_effect=BrokenPipeError))
    assert calls == ["unlink b", "fsync"]


def test_each_stream_whose_sync_fails_is_noted_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []
    names = DurableNames(noted.append)
    write(directory, "a", "b")
    monkeypatch.setattr(os, "fsync", failing)
    for change in (
        lambda: names.sync(directory),
        lambda: names.remove(directory, "a"),
        lambda: names.remove_together(directory, ["b"]),
    ):
        assert names.unsynced == ({"app"} if noted else set())
        with pytest.raises(AtomicWriteError, match="injected"):
            change()
        assert not names.may_remove_from("app")
    assert noted == ["app"]
    assert names.may_remove_from("web")


def test_what_an_earlier_process_noted_is_not_noted_again(directory: Directory) -> None:
    names = DurableNames(failing)
    names.take_over(["app"])
    names.note_failed_sync("app")
    assert names.unsynced == {"app"}


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_file_whose_name_is_not_synced_is_noted(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    noted: list[str] = []
    names = DurableNames(noted.append)
    writer = AtomicWriter(directory.path_of("a"), "wb", buffering=0)
    monkeypatch.setattr(Directory, "sync", failing)
    with pytest.raises(OSError, match="injected"):
        if is_alone:
            with names.published_by(writer, "app"):
                writer.write(b"x")
        else:
            writer.open()
            writer.prepare()
            names.publish(writer, "app")
    assert noted == ["app"]


def test_a_file_that_takes_no_name_is_not_noted(directory: Directory) -> None:
    names = DurableNames(failing)
    writer = AtomicWriter(directory.path_of("a"), "wb", buffering=0)
    with pytest.raises(ZeroDivisionError), names.published_by(writer, "app"):
        raise ZeroDivisionError
    assert names.unsynced == set()
    assert directory.names() == []


def test_a_file_is_there_after_its_writer_has_ended(directory: Directory) -> None:
    writer = AtomicWriter(directory.path_of("a"), "wb", buffering=0)
    with DurableNames(failing).published_by(writer, "app") as opened:
        opened.write(b"x")
    assert Path(directory.path_of("a")).read_bytes() == b"x"
