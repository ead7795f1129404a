"""Threads whose every switch is drawn from a seed, so that a run can be run again.

What is submitted runs as a greenlet of the event loop's thread and gives up its turn
before each system call; who goes on is drawn. So many orders of the same calls are tried,
and each of them again under the same seed.
"""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from greenlet import getcurrent, greenlet


class TurnExecutor(Executor):
    """An executor for one event loop's thread, `source` deciding whose turn it is."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._waiting: list[greenlet] = []
        self._ours: set[greenlet] = set()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def run() -> None:
            try:
                result = call(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - as any executor does
                future.set_exception(error)
            else:
                future.set_result(result)

        started = greenlet(run)
        self._ours.add(started)
        self._waiting.append(started)
        asyncio.get_running_loop().call_soon(self._turn)
        return future

    def pause(self) -> None:
        """Gives up the turn, if it is one of ours who has it."""
        current = getcurrent()
        if current in self._ours:
            assert current.parent is not None
            current.parent.switch()

    def _turn(self) -> None:
        next_one = self._waiting.pop(self._source.randrange(len(self._waiting)))
        next_one.switch()
        if next_one.dead:
            self._ours.discard(next_one)
        else:
            self._waiting.append(next_one)
            asyncio.get_running_loop().call_soon(self._turn)
