"""Space that is kept back, and given up once."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.reserve import RESERVE_NAME, Reserve

SIZE = 64 * 1024


def held(data: Path) -> int:
    return os.stat(data / RESERVE_NAME).st_blocks * 512


def test_it_takes_space_and_gives_it_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, SIZE)
    assert reserve.hold()
    assert held(tmp_path) >= SIZE
    assert reserve.release()
    assert os.listdir(tmp_path) == []


def test_it_is_released_once_and_not_made_again_before_the_next_start(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, SIZE)
    assert reserve.hold()
    assert reserve.release()
    assert not reserve.release()
    assert reserve.hold()
    assert os.listdir(tmp_path) == []
    assert Reserve(tmp_path, SIZE).hold()
    assert held(tmp_path) >= SIZE


@pytest.mark.parametrize("size", [2 * SIZE, SIZE // 2, 0])
def test_it_becomes_as_large_as_it_is_to_be(tmp_path: Path, size: int) -> None:
    assert Reserve(tmp_path, SIZE).hold()
    assert Reserve(tmp_path, size).hold()
    path = tmp_path / RESERVE_NAME
    assert (path.stat().st_size if path.exists() else 0) == size


def test_none_at_all_is_nothing_to_release(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 0)
    assert reserve.hold()
    assert not reserve.release()


def test_the_last_space_is_left_to_the_records(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    reserve = Reserve(tmp_path, free.f_bavail * free.f_frsize)
    assert not reserve.hold()
    assert not reserve.release()


def test_what_cannot_be_had_for_another_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "posix_fallocate", fails)
    with pytest.raises(OSError, match="quota"):
        Reserve(tmp_path, SIZE).hold()
