"""The situations of the test suite of `atomicwrites` 1.4.1, through an adapter of some lines.

Its six tests, by their names: <https://github.com/untitaker/python-atomicwrites>, tests/.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logengine import AtomicWriter


def atomic_write(path: str, *, overwrite: bool = False, **options: Any) -> AtomicWriter:
    """`atomicwrites.atomic_write` as `docs/atomic.md` gives it."""
    return AtomicWriter(path, "w" if overwrite else "x", **options)


@pytest.fixture
def name(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """What to write, by its whole path or from the directory it is in."""
    if request.param == "whole path":
        yield str(tmp_path / "target")
        return
    before = os.getcwd()
    os.chdir(tmp_path)
    yield "target"
    os.chdir(before)


@pytest.mark.parametrize("name", ["whole path", "from its directory"], indirect=True)
def test_atomic_write_and_in_pwd(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        with atomic_write(name, overwrite=True) as file:
            file.write("first")
    with pytest.raises(OSError, match="exists") as caught, atomic_write(name) as file:
        file.write("second")
    assert caught.value.errno == errno.EEXIST
    assert (tmp_path / "target").read_text() == "first"
    assert os.listdir(tmp_path) == ["target"]


def test_teardown(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), atomic_write(str(tmp_path / "target"), overwrite=True):
        raise AssertionError
    assert os.listdir(tmp_path) == []


def test_replace_simultaneously_created_file(tmp_path: Path) -> None:
    path = tmp_path / "target"
    with atomic_write(str(path), overwrite=True) as file:
        file.write("ours")
        path.write_text("theirs")
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert os.listdir(tmp_path) == ["target"]


def test_dont_remove_simultaneously_created_file(tmp_path: Path) -> None:
    path = tmp_path / "target"
    with pytest.raises(OSError, match="exists") as caught, atomic_write(str(path)) as file:
        file.write("ours")
        path.write_text("theirs")
        assert path.read_text() == "theirs"
    assert caught.value.errno == errno.EEXIST
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["target"]


def test_open_reraise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    # What fails while the writer clears up is not what the caller is to see.
    with (
        pytest.raises(AssertionError, match="the caller's"),
        atomic_write(str(tmp_path / "target")),
    ):
        monkeypatch.setattr(os, "unlink", fail)
        raise AssertionError("the caller's")
    monkeypatch.undo()
    assert not (tmp_path / "target").exists()
