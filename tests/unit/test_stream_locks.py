"""Who has a stream to itself: one at a time, and only while no commit of it is under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from logengine.store.stream_locks import StreamLocks


class Streams:
    """Streams of which some are busy, and the order in which they were held."""

    def __init__(self) -> None:
        self.busy: set[str] = set()
        self.held_by: list[str] = []
        self.holds = StreamLocks(self.busy.__contains__, lambda: None)

    @asynccontextmanager
    async def asking(self, who: str, stream: str) -> AsyncIterator[asyncio.Event]:
        """Has `who` ask for `stream`, and hold it until what is given is set."""
        may_end = asyncio.Event()

        async def hold() -> None:
            async with self.holds.hold(stream):
                self.held_by.append(who)
                await may_end.wait()

        task = asyncio.create_task(hold())
        await let_others_go()
        yield may_end
        may_end.set()
        await task


async def let_others_go() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_asks_second_waits_until_the_first_has_let_go() -> None:
    streams = Streams()
    async with streams.asking("first", "app") as first_may_end, streams.asking("second", "app"):
        assert streams.held_by == ["first"]
        first_may_end.set()
        await let_others_go()
        assert streams.held_by == ["first", "second"]
        assert streams.holds.is_held("app")
    assert not streams.holds.is_held("app")


async def test_a_busy_stream_is_not_had_before_what_is_under_way_is_through() -> None:
    streams = Streams()
    streams.busy.add("app")
    async with streams.asking("first", "app"):
        # It is promised already, so nothing new starts; but it is not had yet.
        assert streams.holds.is_held("app")
        assert streams.held_by == []
        streams.busy.remove("app")
        streams.holds.let_through({"app"})
        await let_others_go()
        assert streams.held_by == ["first"]


async def test_a_stream_of_which_more_is_under_way_is_not_had_after_the_first_commit() -> None:
    streams = Streams()
    streams.busy.add("app")
    async with streams.asking("first", "app"):
        streams.holds.let_through({"app"})
        await let_others_go()
        assert streams.held_by == []
        streams.busy.remove("app")
        streams.holds.let_through({"app"})
        await let_others_go()
        assert streams.held_by == ["first"]
