"""A data directory: its name is durable, its path means it, and who cannot take it lets go."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.data_directory import LOCK_NAME, LockedDirectory, create_data_directory
from logengine.disk.segment_file import read_header
from logengine.errors import AtomicWriteError, DataDirectoryReplaced, DataDirectoryUnseen
from logengine.store.store import Store
from tests.crash.rig import oracle


def test_a_lock_is_given_free_where_the_directory_cannot_be_looked_at(tmp_path: Path) -> None:
    with (
        patch.object(os, "fstat", side_effect=OSError(errno.EIO, "injected")),
        pytest.raises(OSError, match="injected"),
    ):
        LockedDirectory.lock(tmp_path)
    LockedDirectory.lock(tmp_path).close()


def test_a_segment_that_cannot_be_looked_at_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "00000000000000000001.ndjson"
    path.write_bytes(b"")
    with (
        patch.object(os, "fstat", side_effect=OSError(errno.EIO, "injected")),
        pytest.raises(OSError, match="injected"),
    ):
        read_header(tmp_path, 1)
    assert str(path) not in open_paths()


def open_paths() -> Iterator[str]:
    """What the descriptors of this process stand for; others may come and go meanwhile."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{descriptor}")


class Disk:
    """Which names a directory's sync makes durable, where those that failed lost theirs for good.

    As ext4 and xfs have it: a sync that fails marks what it was to write as written.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
        self.fails = False
        self.is_durable = False
        self._is_new = True  # the name was given since the last sync
        self._parent = parent
        real = {name: getattr(os, name) for name in ("mkdir", "replace", "fsync")}

        def naming(call: Callable[..., None]) -> Callable[..., None]:
            def named(*args: Any, **kwargs: Any) -> None:
                call(*args, **kwargs)
                self._is_new = True

            return named

        def fsync(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}") == str(self._parent):
                is_new, self._is_new = self._is_new, False
                if self.fails:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                self.is_durable |= is_new
            real["fsync"](descriptor)

        monkeypatch.setattr(os, "mkdir", naming(real["mkdir"]))
        monkeypatch.setattr(os, "replace", naming(real["replace"]))
        monkeypatch.setattr(os, "fsync", fsync)


def test_the_name_of_a_new_data_directory_is_durable_after_a_kill_and_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    disk = Disk(monkeypatch, tmp_path)
    data.mkdir(mode=0o711)  # and killed before the sync
    disk.fails = True
    with pytest.raises(AtomicWriteError, match="sync the directory"):
        create_data_directory(data)
    disk.fails = False
    assert not disk.is_durable
    create_data_directory(data)
    assert disk.is_durable
    assert stat.S_IMODE(data.stat().st_mode) == 0o711
    assert os.listdir(tmp_path) == ["data"]


def test_so_is_the_name_of_the_directory_that_it_is_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    (tmp_path / "above").mkdir()  # and killed before the sync
    disk.fails = True
    with pytest.raises(AtomicWriteError, match="sync the directory"):
        create_data_directory(tmp_path / "above" / "data")
    disk.fails = False
    create_data_directory(tmp_path / "above" / "data")
    assert disk.is_durable


@pytest.mark.parametrize("call", ["listdir", "lstat"])
@pytest.mark.parametrize("error", [errno.EDQUOT, errno.EIO, errno.EMFILE])
def test_a_directory_that_cannot_be_looked_at_now_is_not_taken_for_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, call: str
) -> None:
    data = tmp_path / "data"
    disk = Disk(monkeypatch, tmp_path)
    data.mkdir()  # and its name was lost by a failed sync
    with (
        patch.object(os, call, side_effect=OSError(error, os.strerror(error))),
        pytest.raises(AtomicWriteError, match="data"),
    ):
        create_data_directory(data)
    create_data_directory(data)
    assert disk.is_durable


def test_a_data_directory_that_was_in_use_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).touch()
    with patch.object(os, "replace", side_effect=AssertionError):
        create_data_directory(tmp_path)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV])
def test_an_empty_data_directory_that_is_not_ours_to_rename_is_used_as_it_is(
    tmp_path: Path, error: int
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with patch.object(os, "replace", side_effect=OSError(error, os.strerror(error))):
        create_data_directory(data)
    assert data.is_dir()


def test_a_link_to_a_data_directory_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to("real")
    with patch.object(os, "replace", side_effect=AssertionError):
        create_data_directory(tmp_path / "data")


def test_a_data_directory_that_a_killed_start_left_aside_is_put_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o711)
    real = os.replace

    def killed_after_it(source: str, target: str, **within: int) -> None:
        real(source, target, **within)
        raise KeyboardInterrupt

    with patch.object(os, "replace", killed_after_it), pytest.raises(KeyboardInterrupt):
        create_data_directory(data)
    assert os.listdir(tmp_path) == [".data.tmp"]
    create_data_directory(data)
    assert stat.S_IMODE(data.stat().st_mode) == 0o711
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM])
def test_a_path_that_cannot_be_looked_at_is_not_said_to_be_replaced(
    tmp_path: Path, error: int
) -> None:
    locked = LockedDirectory.lock(tmp_path)
    with patch.object(os, "stat", side_effect=OSError(error, os.strerror(error))):
        for why in (locked.why_not_in_place(), locked.why_gone()):
            assert isinstance(why, DataDirectoryUnseen)
            assert f"[Errno {error}]" in str(why)
    assert locked.why_not_in_place() is None
    locked.close()


def test_a_path_that_leads_elsewhere_is_replaced(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    locked = LockedDirectory.lock(data)
    data.rename(tmp_path / "away")
    assert isinstance(locked.why_not_in_place(), DataDirectoryReplaced)
    tmp_path.joinpath("data").touch()
    assert isinstance(locked.why_not_in_place(), DataDirectoryReplaced)
    locked.close()


async def test_a_store_whose_path_cannot_be_looked_at_for_a_while_says_so_and_goes_on(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, oracle.AtOnce())
    store.open()
    await store.recover_stream("app")
    with patch.object(os, "stat", side_effect=OSError(errno.EIO, "Input/output error")):
        assert isinstance(store.look(), DataDirectoryUnseen)
        # It is its own lock that it would find.
        with pytest.raises(DataDirectoryUnseen, match="cannot be checked"):
            await store.reopen()
    assert await store.reopen() is None
    assert not await store.commit({"app": store.plan("app", oracle.addition("p", 1, 9))})
    store.close()


async def test_a_store_whose_lock_alone_cannot_be_looked_at_does_not_meet_its_own_lock(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, oracle.AtOnce())
    store.open()
    real = os.stat

    def fails_for_the_lock(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path).endswith(LOCK_NAME):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *args, **kwargs)

    with patch.object(os, "stat", fails_for_the_lock):
        assert isinstance(store.look(), DataDirectoryUnseen)
        with pytest.raises(DataDirectoryUnseen, match="cannot be checked"):
            await store.reopen()
    assert await store.reopen() is None
    store.close()


def test_the_name_of_a_stream_that_was_not_synced_is_durable_once_the_directory_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app").mkdir()  # by a process that was killed before its sync
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    store = Store(tmp_path, oracle.AtOnce())
    store.open()
    assert str(tmp_path) in synced
    store.close()
