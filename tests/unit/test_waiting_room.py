"""Which of the connections that wait is let in, and which is refused."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from logengine.intake.shares import PRIVILEGED, Rule, Shares
from logengine.intake.waiting_room import Guest, WaitingRoom
from logengine.protocols.ndjson import PROTOCOL

ROOT, ONE, TWO, THREE = 0, 1000, 1001, 1002
LONG_AGO_S = -1000.0


class Room:
    """A waiting room, and the other ends of the connections in it."""

    def __init__(self) -> None:
        self.shares = Shares(Rule(10, 0, 0.5), {ROOT})
        self.asked: list[Guest] = []
        self.room = WaitingRoom(self.shares, 3, self.asked.append)
        self.clients: dict[Guest, socket.socket] = {}

    def guest(self, uid: int, said: bytes = b"", since_s: float = LONG_AGO_S) -> Guest:
        """A guest that has come, and that said this before."""
        client, accepted = socket.socketpair()
        accepted.setblocking(False)
        client.send(said)
        client.settimeout(60)
        guest = Guest(accepted, uid, "app", PROTOCOL, since_s)
        self.clients[guest] = client
        self.room.add(guest)
        return guest

    def answer(self, guest: Guest) -> dict[str, str]:
        """All that a guest was told before its connection was closed."""
        said = b""
        while piece := self.clients[guest].recv(1000):
            said += piece
        answer: dict[str, str] = json.loads(said)
        return answer

    def is_waiting(self, guest: Guest) -> bool:
        return guest.connection.fileno() >= 0


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    yield made
    made.room.close()
    for guest, client in made.clients.items():
        guest.connection.close()
        client.close()


async def test_a_full_room_refuses_the_oldest_guest_of_the_user_who_has_most(room: Room) -> None:
    few, oldest, newer = room.guest(TWO), room.guest(ONE), room.guest(ONE)
    latest = room.guest(THREE)
    assert room.answer(oldest) == {"goodbye": "too_many_connections"}
    assert len(room.room) == 3
    assert all(map(room.is_waiting, (few, newer, latest)))


async def test_a_full_room_refuses_nobody_of_the_privileged(room: Room) -> None:
    privileged = [room.guest(ROOT), room.guest(ROOT)]
    other = room.guest(ONE)
    room.guest(TWO)
    assert room.answer(other) == {"goodbye": "too_many_connections"}
    assert all(map(room.is_waiting, privileged))


async def test_a_guest_may_stay_for_a_moment_before_it_is_refused(room: Room) -> None:
    now_s = asyncio.get_running_loop().time()
    assert room.room.room_in_s() == 0
    for _ in range(3):
        room.guest(ONE, since_s=now_s + 100)
    assert room.room.room_in_s() > 90
    room.room.take_all()
    for _ in range(3):
        room.guest(ONE, since_s=now_s - 100)
    assert room.room.room_in_s() == 0


async def test_a_room_full_of_the_privileged_has_none_for_a_while(room: Room) -> None:
    for _ in range(3):
        room.guest(ROOT)
    assert room.room.room_in_s() > 0


async def test_the_user_with_the_fewest_connections_is_let_in_first(room: Room) -> None:
    room.shares.change(ONE, 2)
    many, few = room.guest(ONE), room.guest(TWO)
    assert room.room.take() is few
    assert room.room.take() is many
    assert room.room.take() is None


async def test_nobody_is_let_in_who_may_have_no_more(room: Room) -> None:
    room.shares.change(ONE, 5)
    room.guest(ONE)
    assert room.room.take() is None
    entering = room.guest(TWO)
    assert room.room.take() is entering
    room.shares.change(ONE, -1)
    assert room.room.take() is not None


async def test_a_privileged_guest_that_asks_for_the_status_leaves_at_once(room: Room) -> None:
    asking = room.guest(ROOT, b'{"_status":1}\n')
    sending = room.guest(ROOT, b'{"_hello":1}\n')
    room.guest(ONE, b'{"_status":1}\n')
    async with asyncio.timeout(60):
        while not room.asked:  # noqa: ASYNC110 - the kernel says when it can be read
            await asyncio.sleep(0)
    assert room.asked == [asking]
    assert room.shares.holder(asking.uid) == PRIVILEGED
    assert room.is_waiting(sending)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", {"goodbye": "too_many_connections"}),
        (b'{"_hello":1}\n', {"goodbye": "too_many_connections"}),
        (
            b"one\n",
            {
                "error": "too_many_connections",
                "expected": "that you send it all again, later: not all of it is known to be on"
                " disk",
            },
        ),
    ],
)
async def test_only_an_error_tells_a_sender_without_a_hello_that_nothing_is_stored(
    room: Room, said: bytes, answer: dict[str, str]
) -> None:
    guest = room.guest(ONE, said)
    room.room.close()
    # Not `room.answer`: what was not read resets a connection that is closed.
    assert json.loads(room.clients[guest].recv(1000)) == answer
