"""A follower beside a directory that changes faster than it is told."""

import asyncio
import errno
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from logengine.disk.directory import sync_directory
from logengine.disk.segment_file import list_segments
from logengine.errors import AtomicWriteError
from logengine.format.block import Block
from logengine.reading import follower, reader
from logengine.reading.follower import Follower
from logengine.reading.problem import Gone, Problem
from logengine.store.store import Store
from tests.crash.rig import oracle
from tests.daemon import PATIENCE_S


async def test_a_stream_that_was_made_anew_before_it_was_looked_at_is_shown_once(
    tmp_path: Path,
) -> None:
    await write(tmp_path / "elsewhere", "app", "db")
    data = tmp_path / "data"
    await write(data, "web")
    shown: asyncio.Queue[Block] = asyncio.Queue()

    async def follow() -> None:
        async for block in Follower(data, None, {}, lambda _: None).blocks():
            await shown.put(block)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        assert (await shown.get()).stream == "web"
        # As a commit does whose first attempt fails; the follower hears of it all afterwards.
        (data / "app").mkdir()
        (data / "app").rmdir()
        (tmp_path / "elsewhere" / "app").rename(data / "app")
        assert (await shown.get()).stream == "app"
        (tmp_path / "elsewhere" / "db").rename(data / "db")
        assert (await shown.get()).stream == "db", "app was shown twice"
        following.cancel()


@pytest.mark.parametrize(
    ("module", "step", "begins"), [(follower, "sync_directory", 1), (reader, "read_wanted", 2)]
)
async def test_what_goes_with_its_directory_before_it_is_shown_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, begins: int
) -> None:
    data = tmp_path / "data"
    await write(data, *["app"] * 3)
    # As the daemon leaves it, which goes on with its next number in a new directory.
    shutil.copytree(data / "app", tmp_path / "app")
    remove_before(tmp_path / "app", 3)
    remove_before(data / "app", begins)
    shown: asyncio.Queue[Block] = asyncio.Queue()
    problems: list[Problem] = []
    is_removed = asyncio.Event()
    loop = asyncio.get_running_loop()
    real_step = getattr(module, step)
    to_remove = [data / "app"]  # once, whichever thread comes first

    def remove_and_do_step(*arguments: Any) -> Any:
        if to_remove:
            shutil.rmtree(to_remove.pop())
            loop.call_soon_threadsafe(is_removed.set)
        return real_step(*arguments)

    monkeypatch.setattr(module, step, remove_and_do_step)

    async def show() -> None:
        async for block in Follower(data, None, {}, problems.append).blocks():
            await shown.put(block)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(show())
        await is_removed.wait()
        (tmp_path / "app").rename(data / "app")
        assert (await shown.get()).first == 3
        following.cancel()
    assert [problem.gone for problem in problems] == [Gone(1, 2, "removed")]


async def test_without_a_daemon_a_record_is_shown_only_after_a_sync_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(tmp_path, "app")
    sync, happened = sync_directory, ["begun"]

    def noted(directory: Path) -> None:
        sync(directory)
        happened.append(f"synced {directory.name}")

    monkeypatch.setattr(follower, "sync_directory", noted)
    async with asyncio.timeout(PATIENCE_S), aclosing(blocks_of(tmp_path)) as blocks:
        async for block in blocks:
            happened.append(f"shown {block.stream}")
            break
    assert happened == ["begun", "synced app", "shown app"]


async def test_without_a_daemon_nothing_is_shown_whose_directory_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(tmp_path, "app")
    failed = AtomicWriteError(errno.EIO, "injected", str(tmp_path / "app"))
    monkeypatch.setattr(follower, "sync_directory", Mock(side_effect=failed))
    async with asyncio.timeout(PATIENCE_S), aclosing(blocks_of(tmp_path)) as blocks:
        with pytest.raises(AtomicWriteError, match="injected"):
            await anext(blocks)


def blocks_of(data: Path) -> AsyncGenerator[Block]:
    """What a follower of all streams shows."""

    async def follow() -> AsyncGenerator[Block]:
        async for block in Follower(data, None, {}, lambda _: None).blocks():
            yield block

    return follow()


def remove_before(stream: Path, first: int) -> None:
    """Removes the segments before segment `first`, as retention does."""
    assert list_segments(stream)[0] == 1
    assert first in list_segments(stream)
    for path in stream.iterdir():
        if int(path.name[:20]) < first:
            path.unlink()


async def write(data: Path, *streams: str) -> None:
    """Stores a record in each of `streams`, in a segment of its own; the process ends well."""
    store = Store(data, oracle.AtOnce(), oracle.COMMIT, oracle.LIMITS)
    store.open()
    for number, name in enumerate(streams, 1):
        await store.recover_stream(name)
        assert not await store.commit({name: store.plan(name, oracle.addition("p", number, 2000))})
    store.close()
