"""A backup beside changes between any two of its files, and what it refuses."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.directory import Directory
from logengine.disk.segment_file import list_segments, read_header
from logengine.errors import BackupRefused, OldBytesRemain
from logengine.format.segment import segment_name
from logengine.upkeep import backup as backup_module
from logengine.upkeep import erase
from logengine.upkeep.backup import Backup, TakenStream
from logengine.upkeep.verify import verify_stream
from tests.store.compacted import (
    RECORDS,
    commit,
    merge,
    seal,
    seal_each,
    seal_each_and_remove_most,
    seal_twice,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A stream of segments of one record each."""
    commit(tmp_path / "data", range(1, RECORDS + 1))
    return tmp_path / "data"


def drop_all_but_the_newest(data: Path) -> None:
    for number in range(1, RECORDS):
        (data / "app" / segment_name(number)).unlink()


def backed_up(data: Path, target: Path, **options: bool) -> TakenStream:
    with Backup(data, target, **options) as backup:
        taken = backup.take("app")
        backup.finish()
    return taken


def findings(directory: Path) -> list[str]:
    return [str(finding) for finding in verify_stream(directory) if not finding.harmless]


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("at", range(1, RECORDS + 1))
@pytest.mark.parametrize(
    "change",
    [
        lambda data: merge(data, 1, 8),
        lambda data: merge(data, 3, 6),
        lambda data: seal(data, 1, 8),
        seal_twice,
        seal_each,
        seal_each_and_remove_most,
        drop_all_but_the_newest,
        lambda data: commit(data, range(RECORDS + 1, RECORDS + 3)),
    ],
)
def test_what_changes_between_two_files_leaves_no_hole(
    data: Path, tmp_path: Path, at: int, change: Callable[[Path], object], independent: bool
) -> None:
    opened = 0
    really = backup_module._opened

    def open_and_change(*arguments: Any) -> Any:
        nonlocal opened
        opened += 1
        if opened == at:
            change(data)
        return really(*arguments)

    with patch.object(backup_module, "_opened", open_and_change):
        taken = backed_up(data, tmp_path / "backup", independent=independent)
    assert taken.problems == []
    assert taken.last >= RECORDS
    assert taken.first in (1, list_segments(data / "app")[0])
    assert findings(tmp_path / "backup" / "app") == []


def test_files_are_linked_or_copied_with_owner_mode_and_time(data: Path, tmp_path: Path) -> None:
    original = data / "app" / segment_name(1)
    original.chmod(0o604)
    os.utime(original, ns=(10**18, 10**18))
    (data / "app").chmod(0o2751)
    backed_up(data, tmp_path / "linked")
    linked = (tmp_path / "linked" / "app" / original.name).stat()
    backed_up(data, tmp_path / "copied", independent=True)
    copied = (tmp_path / "copied" / "app" / original.name).stat()
    assert copied.st_nlink == 1
    for found in (linked, copied):
        assert stat.S_IMODE(found.st_mode) == 0o604
        assert found.st_mtime_ns == 10**18
        assert (found.st_uid, found.st_gid) == (original.stat().st_uid, original.stat().st_gid)
    for name in ("linked", "copied"):
        assert stat.S_IMODE((tmp_path / name / "app").stat().st_mode) == 0o2751


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_what_cannot_be_linked_is_copied(data: Path, tmp_path: Path, error: int) -> None:
    with patch.object(os, "link", side_effect=OSError(error, os.strerror(error))):
        backed_up(data, tmp_path / "backup")
    assert findings(tmp_path / "backup" / "app") == []
    assert (tmp_path / "backup" / "app" / segment_name(1)).stat().st_nlink == 1


def test_without_proc_files_are_copied(data: Path, tmp_path: Path) -> None:
    with patch.object(os, "link", side_effect=FileNotFoundError(errno.ENOENT, "no /proc")):
        backed_up(data, tmp_path / "backup")
    assert findings(tmp_path / "backup" / "app") == []


def test_what_is_wrong_in_the_stream_is_copied_and_reported(data: Path, tmp_path: Path) -> None:
    (data / "app" / segment_name(3)).unlink()
    (data / "app" / segment_name(5)).write_bytes(b"nonsense\n")
    (data / "app" / segment_name(20)).symlink_to("/etc/passwd")
    os.mkfifo(data / "app" / segment_name(30))
    problems = "\n".join(backed_up(data, tmp_path / "backup").problems)
    assert "segment 5 is damaged" in problems
    assert "records 3 to 3 are missing" in problems
    assert f"{segment_name(20)} is not a regular file, and was left out" in problems
    assert f"{segment_name(30)} is not a regular file, and was left out" in problems
    copied = tmp_path / "backup" / "app"
    assert (copied / segment_name(5)).read_bytes() == b"nonsense\n"
    assert list_segments(copied) == [1, 2, 4, 5, 6, 7, 8, 9]


def test_only_registered_cursors_and_segments_are_taken(data: Path, tmp_path: Path) -> None:
    (data / ".cursors").mkdir()
    (data / ".cursors" / "relay").write_text("app:3\n")
    (data / ".cursors" / "other").write_text("web:3\n")
    (data / ".cursors" / ".relay.1.tmp").write_text("app:4\n")
    (data / ".running").write_text("boot one\n")
    (data / ".reserve").write_text("x")
    (data / "app" / ".temp.tmp").write_text("x")
    (data / "app" / "notes").write_text("x")
    with Backup(data, tmp_path / "backup") as backup:
        backup.take_cursors(["app"])
        backup.take("app")
        backup.finish()
    assert sorted(os.listdir(tmp_path / "backup")) == [".cursors", "app"]
    assert os.listdir(tmp_path / "backup" / ".cursors") == ["relay"]
    assert len(os.listdir(tmp_path / "backup" / "app")) == RECORDS


def test_what_fails_leaves_nothing(data: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Backup(data, tmp_path / "backup") as backup,
    ):
        backup.take("app")
        raise ZeroDivisionError
    with (
        patch.object(os, "fsync", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))),
        pytest.raises(OSError, match="Input/output"),
    ):
        backed_up(data, tmp_path / "backup", independent=True)
    assert os.listdir(tmp_path) == ["data"]


def test_everything_is_on_disk_before_its_name(data: Path, tmp_path: Path) -> None:
    (data / ".cursors").mkdir()
    (data / ".cursors" / "relay").write_text("app:3\n")
    synced: set[int] = set()
    unsynced: list[Path] = []

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)

    def rename(temp: Path, target: Path) -> None:
        unsynced.extend(
            each for each in (temp, *temp.rglob("*")) if each.stat().st_ino not in synced
        )
        synced.clear()
        really(temp, target)

    really = os.rename
    with (
        patch.object(os, "fsync", fsync),
        patch.object(os, "rename", rename),
        Backup(data, tmp_path / "backup", independent=True) as backup,
    ):
        backup.take_cursors(["app"])
        backup.take("app")
        backup.finish()
    assert unsynced == []
    assert synced == {tmp_path.stat().st_ino}, "and then its name is"


def test_a_file_of_any_size_is_copied_whole(data: Path, tmp_path: Path) -> None:
    with patch.object(backup_module, "_COPIED_AT_ONCE_BYTES", 10):
        backed_up(data, tmp_path / "backup", independent=True)
    for name in os.listdir(data / "app"):
        copied = (tmp_path / "backup" / "app" / name).read_bytes()
        assert copied == (data / "app" / name).read_bytes()


def test_two_backups_to_one_place_leave_each_other_alone(data: Path, tmp_path: Path) -> None:
    with Backup(data, tmp_path / "backup") as first:
        first.take("app")
        with Backup(data, tmp_path / "backup") as second:
            second.take("app")
        first.finish()
    assert findings(tmp_path / "backup" / "app") == []
    assert sorted(os.listdir(tmp_path)) == ["backup", "data"]


def test_what_a_killed_backup_left_is_removed_by_the_next_but_not_one_at_work(
    data: Path, tmp_path: Path
) -> None:
    abandoned = tmp_path / f".backup.{'a' * 16}.tmp"
    at_work = tmp_path / f".backup.{'b' * 16}.tmp"
    others = tmp_path / f".backups.{'c' * 16}.tmp"
    for each in (abandoned, at_work, others):
        (each / "app").mkdir(parents=True)
    lock = os.open(at_work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    backed_up(data, tmp_path / "backup")
    os.close(lock)
    assert sorted(os.listdir(tmp_path)) == sorted([at_work.name, others.name, "backup", "data"])


def test_an_empty_directory_becomes_the_backup_and_any_other_is_refused(
    data: Path, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    target.mkdir()
    backed_up(data, target)
    assert findings(target / "app") == []
    before = sorted(target.rglob("*"))
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").write_text("x")
    for refused in (target, tmp_path / "link", tmp_path / "file", tmp_path / "none" / "backup"):
        with pytest.raises(BackupRefused):
            backed_up(data, refused)
    for inside in (data, data / "backup", data / "app" / "backup"):
        with pytest.raises(BackupRefused, match="in the data directory"):
            backed_up(data, inside)
    assert sorted(target.rglob("*")) == before


def test_a_directory_that_was_made_meanwhile_is_left_alone(data: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(BackupRefused, match="made meanwhile"),
        Backup(data, tmp_path / "backup") as backup,
    ):
        backup.take("app")
        (tmp_path / "backup").mkdir()
        (tmp_path / "backup" / "mine").write_text("x")
        backup.finish()
    assert os.listdir(tmp_path / "backup") == ["mine"]
    assert sorted(os.listdir(tmp_path)) == ["backup", "data"]


def test_a_header_of_the_backup_is_that_of_the_stream(data: Path, tmp_path: Path) -> None:
    seal_each(data)
    backed_up(data, tmp_path / "backup")
    for first in list_segments(data / "app"):
        assert read_header(tmp_path / "backup" / "app", first) == read_header(data / "app", first)


def test_an_erasure_spares_a_file_that_a_backup_links_while_it_waits(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"records\n")

    def link(*_: object) -> None:
        os.link(path, tmp_path / "backup")

    with (
        patch.object(erase, "_wait_until_nobody_reads", link),
        Directory.open(tmp_path) as erasing,
        pytest.raises(OldBytesRemain),
    ):
        erase._overwrite(erasing, path.name, 1.0)
    assert path.read_bytes() == b"records\n"
