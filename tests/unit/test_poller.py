import asyncio
import socket
from collections.abc import Iterator

import pytest

from logengine.intake.poller import READS_PER_TURN, Poller


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_can_be_read_is_told_until_it_is_read(pair) -> None:
    ours, theirs = pair
    poller = Poller()
    calls: list[bytes] = []
    poller.add(ours, lambda: calls.append(ours.recv(1)))
    await turns()
    assert calls == []
    theirs.send(b"ab")
    await turns()
    assert calls == [b"a", b"b"]
    poller.close()


async def test_who_was_removed_is_not_told_and_may_come_back(pair) -> None:
    ours, theirs = pair
    poller = Poller()
    calls: list[bytes] = []
    theirs.send(b"a")
    poller.add(ours, lambda: calls.append(ours.recv(1)))
    poller.remove(ours)
    await turns()
    assert calls == []
    poller.add(ours, lambda: calls.append(ours.recv(1)))
    await turns()
    assert calls == [b"a"]
    poller.close()


async def test_a_turn_is_bounded_and_leaves_nobody_out() -> None:
    pairs = [socket.socketpair() for _ in range(READS_PER_TURN + 10)]
    poller = Poller()
    told: dict[int, int] = {}  # in which turn each was read

    def read(number: int) -> None:
        pairs[number][0].recv(1)
        told[number] = poller.turns

    for number, (ours, theirs) in enumerate(pairs):
        theirs.send(b"x")
        poller.add(ours, lambda number=number: read(number))  # type: ignore[misc]
    await turns(10)
    assert len(told) == len(pairs)
    assert [list(told.values()).count(turn) for turn in (1, 2)] == [READS_PER_TURN, 10]
    poller.close()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_who_is_closed_by_another_of_the_same_turn_is_left_alone() -> None:
    first, second = socket.socketpair(), socket.socketpair()
    poller = Poller()
    calls: list[str] = []

    def read(name: str, ours: socket.socket, other: socket.socket) -> None:
        calls.append(name)
        ours.recv(1)
        poller.remove(other)
        other.close()

    for mine, other in ((first, second), (second, first)):
        mine[1].send(b"x")
        poller.add(mine[0], lambda a=mine[0], b=other[0]: read("x", a, b))  # type: ignore[misc]
    await turns()
    assert calls == ["x"]
    poller.close()
    for one in (*first, *second):
        one.close()


async def test_a_sender_that_is_gone_is_told_of_until_it_is_removed(pair) -> None:
    ours, theirs = pair
    ours.send(b"never read")
    theirs.send(b"last words")
    theirs.close()  # with something unread: that is an error at our end
    poller = Poller()
    received: list[bytes] = []

    def read() -> None:
        try:
            received.append(ours.recv(4))
        except ConnectionResetError:
            received.append(b"")
        if not received[-1]:
            poller.remove(ours)

    poller.add(ours, read)
    await turns(10)
    assert b"".join(received) == b"last words"
    assert received[-1] == b""
    poller.close()


async def test_closing_twice_does_no_harm() -> None:
    poller = Poller()
    poller.close()
    poller.close()
