"""A client's spool, call by call."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from logengine.client import spool
from logengine.client.outbox import NEVER_SENT, Chunk
from logengine.client.spool import Spool
from logengine.client.spool_safety import LOCK_NAME
from logengine.disk.segment_file import list_segments
from logengine.errors import SpoolInUse


def test_each_segment_is_removed_durably_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Spool.open(tmp_path, "app", "web")
    for place in (1, 2, 3):
        opened.add([Chunk(place, place, b'{"n":%d}\n' % place)], NEVER_SENT)
    directory = opened.path / "app"
    synced: list[list[int]] = []

    def sync_directory(path: Path) -> None:
        if path == directory:
            synced.append(list_segments(path))

    monkeypatch.setattr(spool, "sync_directory", sync_directory)
    opened.release(3)
    assert synced == [[2, 3], [3], []]
    opened.close()


def test_a_lock_that_was_removed_meanwhile_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    stale: list[os.stat_result] = []

    def lock_after_the_spool_was_made_again(descriptor: int, operation: int) -> None:
        if not stale:
            stale.append(os.fstat(descriptor))
            (path,) = tmp_path.glob(f"*/{LOCK_NAME}")
            path.rename(path.with_name("removed"))  # its inode is not used again
            path.touch(mode=0o600)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_the_spool_was_made_again)
    opened = Spool.open(tmp_path, "app", "web")
    assert stale
    with pytest.raises(SpoolInUse):
        Spool.open(tmp_path, "app", "web")
    opened.close()


def test_a_file_system_without_locks_takes_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks available"):
        Spool.open(tmp_path, "app", "web")
    opened = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.startswith(os.path.realpath(tmp_path))]


def test_what_is_found_is_durable_before_it_is_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Spool.open(tmp_path, "app", "web")
    left.add([Chunk(1, 1, b'{"n":1}\n')], NEVER_SENT)
    left.close()
    synced: list[Path] = []
    monkeypatch.setattr(spool, "sync_directory", synced.append)
    found = Spool.open(tmp_path, "app", "web")
    assert synced == [found.path / "app", found.path]
    assert found.last == 1
    found.close()


def test_what_is_there_goes_before_what_comes_after_a_gap(tmp_path: Path) -> None:
    opened = Spool.open(tmp_path, "app", "web")
    opened.add([Chunk(1, 2, b'{"n":1}\n{"n":2}\n')], NEVER_SENT)
    opened.add([Chunk(4, 4, b'{"n":4}\n')], NEVER_SENT)
    assert list_segments(opened.path / "app") == [4]
    opened.close()
