"""Who may have how much of what is limited, and whose connection gives way."""

from dataclasses import dataclass

from logengine.intake.seats import Seats
from logengine.intake.shares import PRIVILEGED, Rule, Shares

ROOT, DAEMON = 0, 900
ONE, TWO, THREE = 1000, 1001, 1002


def shares(capacity: int = 100, reserved: int = 10, uid_share: float = 1.0) -> Shares:
    return Shares(Rule(capacity, reserved, uid_share), {ROOT, DAEMON})


def fill(held: Shares, uid: int) -> int:
    """Takes as much as a user may have; returns how much it then has."""
    while held.has_room(uid):
        held.change(uid, 1)
    return held.held(held.holder(uid))


def test_a_user_alone_may_have_everything_but_the_reserve() -> None:
    assert fill(shares(), ONE) == 90


def test_the_reserve_is_for_root_and_the_daemons_user_together() -> None:
    held = shares()
    fill(held, ONE)
    held.change(ROOT, 6)
    assert fill(held, DAEMON) == 10
    assert held.total == 100


def test_root_alone_may_have_everything() -> None:
    assert fill(shares(), ROOT) == 100


def test_what_root_has_of_its_reserve_is_taken_from_nobody() -> None:
    held = shares()
    held.change(ROOT, 10)
    assert fill(held, ONE) == 90


def test_what_root_has_beyond_its_reserve_is_taken_from_the_others() -> None:
    held = shares()
    held.change(ROOT, 30)
    assert fill(held, ONE) == 70


def test_each_user_leaves_something_of_what_nobody_else_has() -> None:
    held = shares(capacity=1100, reserved=100, uid_share=0.9)
    assert [fill(held, uid) for uid in (ONE, TWO, THREE)] == [900, 90, 9]


def test_a_user_above_its_share_gets_nothing_more_until_it_has_given_back() -> None:
    held = shares(capacity=100, reserved=0, uid_share=0.9)
    assert fill(held, ONE) == 90
    held.change(TWO, 9)
    held.change(ONE, -8)
    assert not held.has_room(ONE)
    held.change(ONE, -1)
    assert held.has_room(ONE)


def test_what_belongs_to_nobody_known_is_taken_from_all() -> None:
    held = shares()
    assert held.has_room(ONE, unowned=89)
    assert not held.has_room(ONE, unowned=90)
    assert held.has_room(ROOT, unowned=90)


def test_whatever_is_too_small_to_be_shared_still_has_room_for_one() -> None:
    assert shares(capacity=1, reserved=0, uid_share=0.9).has_room(ONE)


def test_the_largest_user_gives_way_until_all_have_the_same() -> None:
    held = shares(capacity=90, reserved=0)
    fill(held, ONE)
    while (largest := held.gives_way(TWO)) is not None:
        held.change(largest, -1)
        held.change(TWO, 1)
    assert (held.held(ONE), held.held(TWO)) == (45, 45)


def test_nobody_gives_way_to_one_who_would_then_have_more() -> None:
    held = shares(capacity=91, reserved=0)
    held.change(ONE, 46)
    held.change(TWO, 45)
    assert held.gives_way(TWO) is None
    held.change(TWO, -1)
    assert held.gives_way(TWO) == ONE


def test_nobody_gives_way_to_the_largest_user() -> None:
    held = shares()
    held.change(TWO, 5)
    fill(held, ONE)
    assert held.gives_way(ONE) is None


def test_root_gives_way_with_what_it_has_beyond_its_reserve() -> None:
    held = shares()
    fill(held, ROOT)
    while (largest := held.gives_way(ONE)) is not None:
        assert largest == PRIVILEGED
        held.change(ROOT, -1)
        held.change(ONE, 1)
    assert (held.held(PRIVILEGED), held.held(ONE)) == (55, 45)


# Which connection gives way.


@dataclass(eq=False)
class Sender:
    """A connection."""

    name: str
    has_unread: bool = False

    def give_way(self) -> None:
        raise NotImplementedError


SILENT_MAX_S = 10.0


def seated(*senders: tuple[str, int], capacity: int = 4) -> tuple[Seats, dict[str, Sender]]:
    seats = Seats(shares(capacity, reserved=0), SILENT_MAX_S)
    by_name = {name: Sender(name) for name, _ in senders}
    for name, uid in senders:
        seats.add(by_name[name], uid, 0.0)
    return seats, by_name


def test_who_never_said_anything_goes_before_who_was_idle_for_long() -> None:
    seats, by = seated(("idle", ONE), ("silent", ONE), ("late", ONE), ("busy", ONE))
    for name in ("idle", "busy"):
        seats.heard(by[name])
    assert not seats.has_room(TWO)
    gone = []
    for now_s in range(2):
        occupant = seats.gives_way(TWO, float(now_s))
        assert isinstance(occupant, Sender)
        gone.append(occupant.name)
        seats.remove(occupant)
        seats.add(Sender("new"), TWO, float(now_s))
    assert gone == ["silent", "late"]
    assert seats.gives_way(TWO, 3.0) is None, "both users have two"


def test_who_was_heard_of_last_goes_last() -> None:
    seats, by = seated(("a", ONE), ("b", ONE), ("c", ONE), ("d", ONE))
    for name in "abcda":
        seats.heard(by[name])
    assert seats.gives_way(TWO, 0.0) is by["b"]


def test_who_has_sent_what_is_not_read_yet_goes_after_those_of_whom_nothing_is_lost() -> None:
    seats, by = seated(("a", ONE), ("b", ONE), ("c", ONE), ("d", ONE))
    for name in "abcd":
        seats.heard(by[name])
    by["a"].has_unread = by["b"].has_unread = True
    assert seats.gives_way(TWO, 0.0) is by["c"]
    by["c"].has_unread = by["d"].has_unread = True
    assert seats.gives_way(TWO, 0.0) is by["a"]


def test_who_is_silent_for_too_long_gives_way_to_anybody() -> None:
    seats, by = seated(("a", ONE), ("b", TWO), ("c", THREE), ("d", ONE + 9))
    seats.heard(by["a"])
    assert seats.gives_way(ONE, SILENT_MAX_S - 1) is None
    assert seats.gives_way(ONE, SILENT_MAX_S) is by["b"]


def test_a_silent_connection_of_roots_reserve_gives_way_to_nobody() -> None:
    seats = Seats(shares(4, reserved=1), SILENT_MAX_S)
    of_root, of_one = Sender("root"), Sender("one")
    seats.add(of_root, ROOT, 0.0)
    assert seats.gives_way(TWO, 100.0) is None
    seats.add(of_one, ONE, 1.0)
    assert seats.gives_way(TWO, 100.0) is of_one


def test_who_has_gone_is_not_heard_of() -> None:
    seats, by = seated(("a", ONE))
    seats.remove(by["a"])
    seats.heard(by["a"])
    seats.remove(by["a"])
    assert seats.gives_way(TWO, 100.0) is None
