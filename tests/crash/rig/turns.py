"""Threads whose every switch is drawn from a seed, so that a run can be run again.

What is submitted runs as a greenlet of the event loop's thread and gives up its turn
before each system call; who goes on is drawn. So many orders of the same calls are tried,
and each of them again under the same seed.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from greenlet import getcurrent, greenlet

from logengine.disk import crash_mark, durable_mark


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

    def wait(self) -> None:
        """Lets somebody else go on: one of ours, or for the event loop itself one of those."""
        if getcurrent() in self._ours:
            self.pause()
        else:
            assert self._waiting, "nobody is left who could go on"
            self._turn()

    @contextlib.contextmanager
    def locks_taken(self) -> Iterator[None]:
        """Gives the engine locks of these threads until the block ends.

        A real one, held by somebody who gave up the turn, would be waited for by all at once.
        """
        threads = SimpleNamespace(Lock=lambda: TurnLock(self))
        with (
            patch.object(durable_mark, "threading", threads),
            patch.object(crash_mark, "threading", threads),
        ):
            yield

    def _turn(self) -> None:
        # Whoever waited for a lock may have taken it already.
        if not self._waiting:
            return
        next_one = self._waiting.pop(self._source.randrange(len(self._waiting)))
        next_one.switch()
        if next_one.dead:
            self._ours.discard(next_one)
        else:
            self._waiting.append(next_one)
            asyncio.get_running_loop().call_soon(self._turn)


class TurnLock:
    """A lock of the threads of a `TurnExecutor`, and of the event loop that they belong to."""

    def __init__(self, executor: TurnExecutor) -> None:
        self._executor = executor
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            self._executor.wait()
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False
