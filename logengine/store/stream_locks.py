"""Who has a stream for himself: between commits, and one at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field


@dataclass
class _StreamLock:
    through: asyncio.Event = field(default_factory=asyncio.Event)  # nothing of it is under way
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class StreamLocks:
    """The streams that are held.

    `is_busy` tells whether a commit touches the directory of a stream; whoever knows that none
    does any more calls `let_through`, and starts none where `is_held`. `on_ended` is called
    whenever one is let go.
    """

    def __init__(self, is_busy: Callable[[str], bool], on_ended: Callable[[], None]) -> None:
        self._is_busy = is_busy
        self._on_ended = on_ended
        self._held: dict[str, _StreamLock] = {}

    def is_held(self, stream: str) -> bool:
        """Whether somebody has `stream`, or waits for what is under way in it."""
        return stream in self._held

    @contextlib.asynccontextmanager
    async def hold(self, stream: str) -> AsyncIterator[None]:
        """Has `stream`, as soon as nobody else has it and nothing of it is under way."""
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
        """Tells who holds one of `streams` that nothing of it is under way any more."""
        for stream, hold in self._held.items():
            if stream in streams and not self._is_busy(stream):
                hold.through.set()
