"""A file that is made and never replaces another one; and what an error says of what is there."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logengine import AsyncAtomicWriter, AtomicWriter, LogEngineError
from logengine.disk import exclusive_rename
from logengine.errors import AtomicWriteError, TargetExists


@pytest.fixture(params=["renameat2", "link"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The call that gives the name: the second one is for kernels without the first."""
    if request.param == "link":
        monkeypatch.setattr(exclusive_rename, "_renameat2", lambda: None)
    return str(request.param)


@pytest.mark.parametrize(("mode", "data"), [("x", "new"), ("xt", "new"), ("xb", b"new")])
def test_a_new_file_is_made(tmp_path: Path, mode: str, data: Any, by: str) -> None:
    with AtomicWriter(tmp_path / "file", mode) as writer:
        writer.write(data)
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_nlink == 1
    assert os.listdir(tmp_path) == ["file"]


def make_file(path: Path) -> None:
    path.write_text("old")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_file, make_dangling_link, os.mkfifo, os.mkdir])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_is_there_is_never_replaced(
    tmp_path: Path, make: Callable[[Path], None], when: str, by: str
) -> None:
    path = tmp_path / "file"
    if when == "before":
        make(path)
    with pytest.raises(FileExistsError) as caught, AtomicWriter(path, "x") as writer:
        writer.write("new")
        assert when == "meanwhile"
        make(path)
    assert isinstance(caught.value, TargetExists)
    assert isinstance(caught.value, LogEngineError)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.filename == str(path)
    assert not caught.value.published
    assert os.listdir(tmp_path) == ["file"]
    if make is make_file:
        assert path.read_text() == "old"
    assert not (tmp_path / "nowhere").exists()


async def test_the_async_writer_never_replaces_either(tmp_path: Path) -> None:
    async with AsyncAtomicWriter(tmp_path / "file", "x") as writer:
        await writer.write("new")
    with pytest.raises(FileExistsError):
        async with AsyncAtomicWriter(tmp_path / "file", "x") as writer:
            await writer.write("newer")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_of_many_that_make_one_file_one_succeeds(tmp_path: Path, by: str) -> None:
    count = 8
    for number in range(20):
        path = tmp_path / str(number)
        at_once = threading.Barrier(count)
        made: list[int] = []
        refused: list[int] = []

        def make(
            name: int,
            path: Path = path,
            at_once: threading.Barrier = at_once,
            made: list[int] = made,
            refused: list[int] = refused,
        ) -> None:
            writer = AtomicWriter(path, "x")
            writer.open()
            writer.write(f"{name}")
            writer.prepare()
            at_once.wait()
            try:
                writer.publish()
            except FileExistsError:
                refused.append(name)
            else:
                writer.sync_directory()
                made.append(name)

        threads = [threading.Thread(target=make, args=[name]) for name in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1
        assert len(refused) == count - 1
        assert path.read_text() == f"{made[0]}"
    assert len(os.listdir(tmp_path)) == 20


def test_where_the_file_system_has_no_exclusive_rename_a_link_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive_rename, "_renameat2", lambda: lambda *_: False)
    with AtomicWriter(tmp_path / "file", "x") as writer:
        writer.write("new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").stat().st_nlink == 1


def test_threads_with_writers_of_their_own_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [f"{name}" * 100_000 for name in range(4)]

    def write(content: str) -> None:
        for _ in range(20):
            with AtomicWriter(path) as writer:
                writer.write(content)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            seen.add(path.read_text())
    for thread in threads:
        thread.join()
    assert seen <= set(contents)
    assert path.read_text() in contents
    assert os.listdir(tmp_path) == ["file"]


# What an error says.


def fail_directory_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("mode", ["w", "x"])
def test_an_error_after_the_replace_says_that_the_new_content_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    path = tmp_path / "file"
    if mode == "w":
        path.write_text("old")
    fail_directory_syncs(monkeypatch)
    writer = AtomicWriter(path, mode)
    with pytest.raises(AtomicWriteError, match="the new content is there") as caught, writer:
        writer.write("new")
    assert caught.value.published
    assert caught.value.errno == errno.EIO
    assert str(tmp_path) in str(caught.value)
    assert writer.published
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


async def test_the_async_writer_says_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_directory_syncs(monkeypatch)
    writer = AsyncAtomicWriter(tmp_path / "file")
    with pytest.raises(AtomicWriteError) as caught:
        async with writer:
            await writer.write("new")
    assert caught.value.published
    assert writer.published
    assert (tmp_path / "file").read_text() == "new"


def test_an_error_before_the_replace_says_that_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    writer = AtomicWriter(tmp_path / "file")
    with pytest.raises(AtomicWriteError, match="cannot replace") as caught, writer:
        writer.write("new")
    assert not caught.value.published
    assert not writer.published
    assert "new content" not in str(caught.value)


@pytest.mark.parametrize("options", [{"encoding": "utf-8"}, {"errors": "strict"}, {"newline": ""}])
def test_bytes_have_no_options_of_text(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="bytes have no"):
        AtomicWriter(tmp_path / "file", "wb", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["a", "r", "w+", "r+", "xw", "bw", "", "wbt"])
def test_other_modes_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="expected w, wt, wb, x, xt, xb"):
        AtomicWriter(tmp_path / "file", mode)
