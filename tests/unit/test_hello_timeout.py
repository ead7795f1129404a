"""Hellos that take too long."""

import asyncio
from dataclasses import dataclass, field

import pytest

from logengine.intake.hello_timeout import HelloTimeout

pytestmark = pytest.mark.timeout(120)  # without a limit, each test would wait for ever


@dataclass(eq=False)
class Greeter:
    """A connection that began its hello."""

    kept_from_sending: int = 0  # how often it is found so
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end_hello(self) -> bool:
        if self.kept_from_sending:
            self.kept_from_sending -= 1
            return False
        self.ended.set()
        return True


async def test_who_takes_too_long_is_ended() -> None:
    timeout = HelloTimeout(0.001)
    greeters = [Greeter() for _ in range(3)]
    for greeter in greeters:
        timeout.begins(greeter)
        timeout.begins(greeter)
    for greeter in greeters:
        await greeter.ended.wait()


async def test_whoever_the_daemon_did_not_read_gets_the_time_again() -> None:
    timeout = HelloTimeout(0.001)
    held_up = Greeter(kept_from_sending=2)
    timeout.begins(held_up)
    await held_up.ended.wait()
    assert held_up.kept_from_sending == 0


async def test_who_has_finished_is_left_alone() -> None:
    timeout = HelloTimeout(0.001)
    finished, other = Greeter(), Greeter()
    timeout.begins(finished)
    timeout.ends(finished)
    timeout.ends(finished)
    timeout.begins(other)
    await other.ended.wait()
    assert not finished.ended.is_set()


async def test_who_begins_again_and_again_gains_no_time() -> None:
    timeout = HelloTimeout(0.001)
    slow = Greeter()
    async with asyncio.timeout(60):
        while not slow.ended.is_set():
            timeout.begins(slow)
            await asyncio.sleep(0)


async def test_who_began_later_is_ended_later() -> None:
    timeout = HelloTimeout(0.2)
    first, second = Greeter(), Greeter()
    timeout.begins(first)
    await asyncio.sleep(0)
    timeout._began_s[second] = asyncio.get_running_loop().time() + 3600
    await first.ended.wait()
    assert not second.ended.is_set()
    timeout.close()
