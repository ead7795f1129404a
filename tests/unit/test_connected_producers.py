"""Which producers have a connection, and so are not forgotten."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from logengine.format.producers import Producer
from logengine.intake.producers import Producers

ANN, BOB = 1000, 1001
ANNS, BOBS, OLD = Producer(ANN, "web"), Producer(BOB, "web"), Producer(None, "web")


@dataclass(eq=False)
class Speaker:
    """A connection whose hello named a producer."""

    uid: int
    stream: str = "app"
    producer: str | None = "web"
    next_number: int = 0
    is_fenced: bool = False

    def welcome_producer(self, next_number: int, _known: int) -> None:
        self.next_number = next_number

    def fence(self) -> None:
        self.is_fenced = True


class Stored:
    """A store, and a committer with nothing waiting."""

    generation = 0
    is_connected: Any

    async def barrier(self, _stream: str) -> None:
        await asyncio.sleep(0)

    def last_durable(self, _stream: str, _producer: Producer) -> int:
        return 6


def producers_of(tasks: asyncio.TaskGroup) -> Producers:
    stored = Stored()
    return Producers(cast("Any", stored), cast("Any", stored), tasks)


async def test_a_producer_is_connected_under_its_own_user_and_under_no_user() -> None:
    async with asyncio.TaskGroup() as tasks:
        producers = producers_of(tasks)
        ann = Speaker(ANN)
        producers.greet(ann, None)
        connected = [producers.is_connected("app", each) for each in (ANNS, BOBS, OLD)]
        assert connected == [True, False, True]
        assert not producers.is_connected("web", OLD)
        producers.forget(ann)
        assert not any(producers.is_connected("app", each) for each in (ANNS, BOBS, OLD))


async def test_of_two_users_with_one_name_the_last_one_disconnects_it() -> None:
    async with asyncio.TaskGroup() as tasks:
        producers = producers_of(tasks)
        ann, bob = Speaker(ANN), Speaker(BOB)
        producers.greet(ann, None)
        producers.greet(bob, None)
        producers.forget(ann)
        assert producers.is_connected("app", OLD)
        assert producers.connected == 1
        producers.forget(bob)
        assert not producers.is_connected("app", OLD)


async def test_a_name_that_was_taken_over_is_connected_until_the_newest_has_gone() -> None:
    async with asyncio.TaskGroup() as tasks:
        producers = producers_of(tasks)
        first, second = Speaker(ANN), Speaker(ANN)
        producers.greet(first, None)
        producers.greet(second, None)
        assert first.is_fenced
        producers.forget(first)
        assert producers.is_connected("app", OLD)
        producers.forget(second)
        assert not producers.is_connected("app", OLD)
        assert (first.next_number, second.next_number) == (0, 0)


async def test_nothing_is_kept_of_names_whose_connections_have_gone() -> None:
    async with asyncio.TaskGroup() as tasks:
        producers = producers_of(tasks)
        for number in range(100):
            speaker = Speaker(ANN, producer=f"web-{number}")
            producers.greet(speaker, None)
            producers.forget(speaker)
        assert (producers.connected, producers.greeted, len(producers._named)) == (0, 0, 0)
