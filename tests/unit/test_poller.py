import asyncio
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable

import pytest

from logengine.intake.poller import TURN_S, Poller
from logengine.intake.turns import READ_BYTES_FIRST, READ_BYTES_MIN, READ_COST_S, ReadSize


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    clock = Clock()
    made = Poller(lambda: clock.now_s)
    made.clock = clock  # type: ignore[attr-defined]
    yield made
    made.close()


class Clock:
    """A time that passes only in reads."""

    now_s = 0.0


class Sender:
    """Both ends of a socket, read by `read`, or one byte at a time."""

    def __init__(
        self,
        poller: Poller,
        flow: Hashable = 0,
        read: Callable[[socket.socket], bytes] = lambda ours: ours.recv(1),
        cost_s: float = 0.0,
        worked_bytes: int = 1,
    ) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.flow = flow
        self.read_size = ReadSize()
        self.calls: list[bytes] = []
        self.turns: list[int] = []
        self._read = read
        self._cost_s = cost_s
        self._worked_bytes = worked_bytes
        self._poller = poller
        poller.enter(flow)

    def watch(self) -> "Sender":
        self._poller.add(self.ours, self)
        return self

    def on_readable(self) -> int:
        self.turns.append(self._poller.turns)
        self._poller.clock.now_s += self._cost_s  # type: ignore[attr-defined]
        self.calls.append(self._read(self.ours))
        return self._worked_bytes

    def close(self) -> None:
        if self._poller.watches(self.ours):
            self._poller.remove(self.ours)
        self.ours.close()
        self.theirs.close()
        self._poller.leave(self.flow)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_can_be_read_is_told_until_it_is_read(poller: Poller) -> None:
    sender = Sender(poller).watch()
    await turns()
    assert sender.calls == []
    sender.theirs.send(b"ab")
    await turns()
    assert sender.calls == [b"a", b"b"]
    sender.close()


async def test_who_was_removed_is_not_told_and_may_come_back(poller: Poller) -> None:
    sender = Sender(poller).watch()
    sender.theirs.send(b"a")
    poller.remove(sender.ours)
    await turns()
    assert sender.calls == []
    sender.watch()
    await turns()
    assert sender.calls == [b"a"]
    sender.close()


async def test_a_turn_is_bounded_by_its_time_and_leaves_nobody_out(poller: Poller) -> None:
    senders = [Sender(poller, cost_s=TURN_S / 10).watch() for _ in range(100)]
    for sender in senders:
        sender.theirs.send(b"x")
    await turns(20)
    assert [len(sender.calls) for sender in senders] == [1] * 100
    of_each_turn = Counter(turn for sender in senders for turn in sender.turns)
    assert max(of_each_turn.values()) <= 11
    for sender in senders:
        sender.close()


async def test_one_read_that_takes_longer_than_a_turn_ends_it(poller: Poller) -> None:
    slow, other = (Sender(poller, cost_s=100 * TURN_S).watch() for _ in range(2))
    for sender in (slow, other):
        sender.theirs.send(b"x")
    await turns()
    assert slow.turns != other.turns
    for sender in (slow, other):
        assert sender.calls == [b"x"]
        sender.close()


async def test_a_user_with_many_connections_gets_no_more_than_a_user_with_one(
    poller: Poller,
) -> None:
    many = [Sender(poller, "many", cost_s=TURN_S / 20).watch() for _ in range(64)]
    one = Sender(poller, "one", cost_s=TURN_S / 20).watch()
    for sender in (*many, one):
        sender.theirs.send(b"x" * 1000)
    while len(one.calls) < 500:
        await turns(1)
    of_many = sum(len(sender.calls) for sender in many)
    assert 0.9 <= of_many / len(one.calls) <= 1.1
    # And its own connections take turns.
    assert max(len(s.calls) for s in many) - min(len(s.calls) for s in many) <= 2
    for sender in (*many, one):
        sender.close()


async def test_a_user_whose_reads_take_long_gets_no_more_time_than_others(poller: Poller) -> None:
    dear = [Sender(poller, "dear", cost_s=3 * TURN_S).watch() for _ in range(16)]
    cheap = Sender(poller, "cheap", cost_s=TURN_S / 100).watch()
    for sender in (*dear, cheap):
        sender.theirs.send(b"x" * 10_000)
    while len(cheap.calls) < 6000:
        await turns(1)
    of_dear_s = sum(len(sender.calls) for sender in dear) * 3 * TURN_S
    assert 0.9 <= of_dear_s / (len(cheap.calls) * TURN_S / 100) <= 1.1
    for sender in (*dear, cheap):
        sender.close()


async def test_a_new_sender_is_read_after_one_read_of_each_busy_user(poller: Poller) -> None:
    busy = [Sender(poller, user, cost_s=TURN_S).watch() for user in range(5) for _ in range(20)]
    for sender in busy:
        sender.theirs.send(b"x" * 1000)
    await turns(100)
    before = sum(len(sender.calls) for sender in busy)
    new = Sender(poller, "new").watch()
    new.theirs.send(b"hello")
    while not new.calls:
        await turns(1)
    assert sum(len(sender.calls) for sender in busy) - before <= 6
    for sender in (*busy, new):
        sender.close()


async def test_a_sender_of_costly_bytes_is_read_in_small_pieces(poller: Poller) -> None:
    costly = Sender(
        poller, cost_s=20 * READ_COST_S, worked_bytes=READ_BYTES_FIRST, read=lambda s: s.recv(1)
    ).watch()
    costly.theirs.send(b"xx")
    await turns()
    assert costly.read_size.size_bytes == READ_BYTES_MIN
    costly.close()


async def test_after_a_costly_read_the_loop_has_time_for_the_acks_of_other_users() -> None:
    clock = Clock()
    poller = Poller(lambda: clock.now_s, lambda: clock.now_s)
    poller.clock = clock  # type: ignore[attr-defined]
    costly = Sender(poller, "costly", cost_s=50 * TURN_S).watch()
    costly.theirs.send(b"xyz")
    while not costly.calls:
        await turns(1)
    assert not poller.is_resting  # it is the only user
    other = Sender(poller, "other").watch()
    while len(costly.calls) < 2:
        await turns(1)
    assert poller.is_resting
    while len(costly.calls) < 3:
        await turns(1)
    poller.close()
    for sender in (costly, other):
        sender.theirs.close()
        sender.ours.close()


async def test_while_others_are_committed_each_full_turn_is_followed_by_a_rest() -> None:
    clock = Clock()
    commits = False
    poller = Poller(lambda: clock.now_s, lambda: clock.now_s, others_commit=lambda: commits)
    poller.clock = clock  # type: ignore[attr-defined]
    busy = Sender(poller, "busy", cost_s=TURN_S).watch()
    light = Sender(poller, "light", cost_s=TURN_S / 10).watch()

    async def rests_after(sender: Sender) -> bool:
        await turns()
        sender.theirs.send(b"x")
        read = len(sender.calls)
        while len(sender.calls) == read:
            await turns(1)
        is_resting = poller.is_resting
        while poller.is_resting:
            await turns(1)
        return is_resting

    assert not await rests_after(busy)
    commits = True
    assert await rests_after(busy)
    assert not await rests_after(light)
    light.close()
    assert not await rests_after(busy)  # nobody else is there
    busy.close()
    poller.close()


async def test_a_user_with_costly_reads_waits_for_the_commit_of_another_but_not_for_long() -> None:
    clock = Clock()
    commits = False
    poller = Poller(lambda: clock.now_s, lambda: clock.now_s, others_commit=lambda: commits)
    poller.clock = clock  # type: ignore[attr-defined]
    costly = Sender(poller, "costly", cost_s=50 * TURN_S).watch()
    light = Sender(poller, "light", cost_s=TURN_S / 10).watch()
    costly.theirs.send(b"xxx")
    while not costly.calls:
        await turns(1)
    commits = True
    for number in range(1, 10):
        light.theirs.send(b"x")
        while len(light.calls) < number:
            await turns(1)
        assert len(costly.calls) == 1
    commits = False
    while len(costly.calls) < 2:
        await turns(1)
    commits = True
    started = poller.turns
    while poller.turns < started + 10:
        await turns(1)
    assert len(costly.calls) == 2
    clock.now_s += 11 * TURN_S
    while len(costly.calls) < 3:
        await turns(1)
    for sender in (costly, light):
        sender.close()
    poller.close()


async def test_a_turn_in_which_others_were_read_has_no_costly_read() -> None:
    clock = Clock()
    poller = Poller(lambda: clock.now_s, lambda: clock.now_s)
    poller.clock = clock  # type: ignore[attr-defined]
    costly = Sender(poller, "costly", cost_s=3 * TURN_S).watch()
    light = Sender(poller, "light", cost_s=TURN_S / 100).watch()
    costly.theirs.send(b"x" * 100)
    light.theirs.send(b"x" * 10_000)
    while len(costly.calls) < 10:
        await turns(1)
    assert set(costly.turns[1:]).isdisjoint(light.turns)
    for sender in (costly, light):
        sender.close()
    poller.close()


async def test_by_its_clock_neither_reads_nor_rests_take_any_time() -> None:
    clock = Clock()
    seen_s: list[float] = []
    poller = Poller(lambda: clock.now_s, lambda: clock.now_s)

    def read(ours: socket.socket) -> bytes:
        seen_s.append(poller.free_s())
        return ours.recv(1)

    poller.clock = clock  # type: ignore[attr-defined]
    costly = Sender(poller, "costly", read, cost_s=50 * TURN_S).watch()
    other = Sender(poller, "other", read).watch()
    costly.theirs.send(b"xx")
    while not costly.calls:
        await turns(1)
    assert poller.is_resting
    clock.now_s += 1
    other.theirs.send(b"x")
    while not other.calls or len(costly.calls) < 2:
        await turns(1)
    while poller.is_resting:
        await turns(1)
    assert seen_s == [0.0] * 3
    clock.now_s += 1
    assert poller.free_s() == pytest.approx(1)
    for sender in (costly, other):
        sender.close()
    poller.close()


async def test_nothing_is_kept_of_a_user_whose_last_sender_has_left(poller: Poller) -> None:
    for user in range(50):
        senders = [Sender(poller, user).watch() for _ in range(3)]
        for sender in senders:
            sender.theirs.send(b"x")
        await turns()
        for sender in senders:
            assert sender.calls
            sender.close()
    assert poller.flows == 0
    assert poller._schedule.flows <= 1  # that of users for whom there was no descriptor
    assert len(poller._polled) == 1


async def test_users_for_whom_there_is_no_descriptor_are_read_all_the_same(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> None:
        raise OSError

    monkeypatch.setattr(select, "epoll", none_left)
    senders = [Sender(poller, user).watch() for user in range(3)]
    monkeypatch.undo()
    senders += [Sender(poller, "late").watch()]
    for sender in senders:
        sender.theirs.send(b"x")
    await turns()
    for sender in senders:
        assert sender.calls == [b"x"]
        sender.close()
    assert poller.flows == 0


async def test_who_is_closed_by_another_of_the_same_turn_is_left_alone(poller: Poller) -> None:
    senders: list[Sender] = []

    def read(ours: socket.socket) -> bytes:
        (other,) = (sender for sender in senders if sender.ours is not ours)
        other.close()
        return ours.recv(1)

    senders += [Sender(poller, read=read).watch() for _ in range(2)]
    for sender in senders:
        sender.theirs.send(b"x")
    await turns()
    assert sorted(len(sender.calls) for sender in senders) == [0, 1]
    next(sender for sender in senders if sender.calls).close()


async def test_a_sender_that_is_gone_is_told_of_until_it_is_removed(poller: Poller) -> None:
    def read(ours: socket.socket) -> bytes:
        try:
            received = ours.recv(4)
        except ConnectionResetError:
            received = b""
        if not received:
            poller.remove(ours)
        return received

    sender = Sender(poller, read=read)
    sender.ours.send(b"never read")
    sender.theirs.send(b"last words")
    sender.theirs.close()  # with something unread: that is an error at our end
    sender.watch()
    await turns(10)
    assert b"".join(sender.calls) == b"last words"
    assert sender.calls[-1] == b""
    sender.close()


async def test_closing_twice_does_no_harm() -> None:
    poller = Poller()
    poller.close()
    poller.close()
