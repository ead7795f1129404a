"""What wakes the daemon when a followed file changes."""

import asyncio
import errno
from pathlib import Path
from typing import NoReturn

import pytest

from logengine.followed_files import changes
from logengine.followed_files.changes import Changes

FOREVER_S = 60.0


async def test_a_change_in_a_directory_wakes_whoever_waits(tmp_path: Path) -> None:
    watching = Changes()
    watching.watch({str(tmp_path): 1, f"{tmp_path}/missing": 2})
    waiting = asyncio.create_task(watching.wait(FOREVER_S, hears=True))
    await asyncio.sleep(0)
    (tmp_path / "app.log").write_text("one\n")
    assert await waiting
    assert not await watching.wait(0, hears=True)
    watching.close()


async def test_without_inotify_it_is_woken_in_time_and_by_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used_up() -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(changes, "Inotify", used_up)
    watching = Changes()
    watching.watch({str(tmp_path): 1})
    assert not await watching.wait(0, hears=True)
    watching.wake()
    assert not await watching.wait(FOREVER_S, hears=True)
    watching.close()
