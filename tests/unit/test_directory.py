"""The names in a directory, and its own, are durable when they are said to be."""

import errno
import os
import stat
from pathlib import Path
from unittest.mock import patch

import pytest

from logengine.disk.directory import (
    Directory,
    create_directories,
    create_directory,
    sync_directory,
)
from logengine.errors import AtomicWriteError


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that were synced, in order."""
    paths: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return paths


def no_sync(_descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_new_directory_is_synced_in_its_parent(tmp_path: Path, synced: list[str]) -> None:
    create_directory(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    create_directory(tmp_path / "a" / "b")
    assert synced[2:] == [str(tmp_path / "a")], (
        "whoever made it may have been killed before its sync"
    )


def test_a_directory_whose_name_could_not_be_synced_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_sync:
        without_sync.setattr(os, "fsync", no_sync)
        with pytest.raises(OSError, match="sync the directory"):
            create_directory(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    create_directory(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_directories_share_one_sync(tmp_path: Path, synced: list[str]) -> None:
    assert create_directories(tmp_path, ["a", "b"]) == {}
    assert synced == [str(tmp_path)]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_an_empty_directory_is_made_anew_with_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    # Keeps the number of the inode from being given to the new directory.
    before = os.open(tmp_path / "empty", os.O_RDONLY)
    used = (tmp_path / "used").stat().st_ino
    assert create_directories(tmp_path, ["empty", "used"]) == {}
    after = (tmp_path / "empty").stat()
    assert after.st_ino != os.fstat(before).st_ino
    assert stat.S_IMODE(after.st_mode) == 0o700
    assert (tmp_path / "used").stat().st_ino == used
    os.close(before)


def test_a_failed_sync_of_the_parent_fails_all_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_sync:
        without_sync.setattr(os, "fsync", no_sync)
        failed = create_directories(tmp_path, ["a", "b"])
    assert sorted(failed) == ["a", "b"]
    assert "sync the directory" in str(failed["a"])
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    failed = create_directories(tmp_path, ["x" * 300, "b"])
    assert list(failed) == ["x" * 300]
    assert os.listdir(tmp_path) == ["b"]


def test_a_directory_sync_is_not_believed_if_the_file_system_is_gone(tmp_path: Path) -> None:
    with (
        patch.object(os, "fstat", side_effect=OSError(errno.EIO, "shut down")),
        pytest.raises(AtomicWriteError, match="sync the directory"),
    ):
        sync_directory(tmp_path)


def test_what_fails_is_named_by_its_path_and_nothing_else(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as directory:
        with pytest.raises(FileNotFoundError) as of_unlink:
            directory.unlink("gone")
        with pytest.raises(FileNotFoundError) as of_replace:
            directory.replace("gone", "target")
        refuse = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with (
            patch.object(os, "listdir", side_effect=refuse),
            pytest.raises(PermissionError) as of_names,
        ):
            directory.names()
    assert str(of_unlink.value) == f"[Errno 2] No such file or directory: '{tmp_path}/gone'"
    assert str(of_replace.value) == f"[Errno 2] No such file or directory: '{tmp_path}/target'"
    assert str(of_names.value) == f"[Errno 13] Permission denied: '{tmp_path}'"
