"""A follower beside a directory that changes faster than it is told."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from logengine.reading.follow import Follower
from logengine.store.store import Store
from tests.crash import oracle

if TYPE_CHECKING:
    from logengine.format.block import Block


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

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
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


async def write(data: Path, *streams: str) -> None:
    """Stores a record in each of `streams`; the process ends well."""
    store = Store(data, oracle.AtOnce(), oracle.LIMITS)
    store.open()
    for name in streams:
        await store.recover_stream(name)
        assert not await store.commit({name: store.plan(name, oracle.addition("p", 1, 9))})
    store.close()
