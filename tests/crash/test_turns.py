"""Threads by turns get along with the event loop that they belong to."""

import asyncio
import random

import pytest

from tests.crash.rig.turns import TurnExecutor, TurnLock


@pytest.mark.parametrize("seed", range(5))
def test_whoever_needs_a_lock_lets_its_holder_go_on(seed: int) -> None:
    done = []

    async def run() -> None:
        executor = TurnExecutor(random.Random(seed))
        lock = TurnLock(executor)
        is_held = asyncio.Event()

        def work(name: str) -> None:
            with lock:
                is_held.set()
                for _ in range(3):
                    executor.pause()
                done.append(name)

        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(executor, work, name) for name in ("one", "two")]
        await is_held.wait()
        with lock:
            assert done
            done.append("loop")
        await asyncio.gather(*threads)
        await loop.run_in_executor(executor, work, "three")

    asyncio.run(run())
    assert sorted(done[:3]) == ["loop", "one", "two"]
    assert done[3:] == ["three"]
