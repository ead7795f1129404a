"""Exclusive access to a stream: between commits, for one holder at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field


@dataclass
class _StreamLock:
    through: asyncio.Event = field(default_factory=asyncio.Event)  # no commit is under way
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class StreamLocks:
    """The streams that are held.

    `is_busy` returns whether a commit is using a stream's directory. The committer starts no
    commit while `is_held` is true, and calls `let_through` when a commit has finished. `on_ended`
    is called whenever a stream is released.
    """

    def __init__(self, is_busy: Callable[[str], bool], on_ended: Callable[[], None]) -> None:
        self._is_busy = is_busy
        self._on_ended = on_ended
        self._held: dict[str, _StreamLock] = {}

    def is_held(self, stream: str) -> bool:
        """Whether a holder has `stream`, or waits for its commits to finish."""
        return stream in self._held

    @contextlib.asynccontextmanager
    async def hold(self, stream: str) -> AsyncIterator[None]:
        """Holds `stream` inside the block; waits for other holders and for commits under way."""
        while (other := self._held.get(stream)) is not None:
            await other.ended.wait()
        hold = self._held[stream] = _StreamLock()
        try:
            if self._is_busy(stream):
                await hold.through.wait()
            yield
        finally:
            del self._held[stream]
            hold.ended.set()
            self._on_ended()

    def let_through(self, streams: Collection[str]) -> None:
        """Wakes the waiting holders of those `streams` that have no commit under way any more."""
        for stream, hold in self._held.items():
            if stream in streams and not self._is_busy(stream):
                hold.through.set()
