"""Whatever users take, give back and give up: no more than there is, and a place for everybody."""

from hypothesis import given
from hypothesis import strategies as st

from logengine.intake.shares import PRIVILEGED, Rule, Shares

ROOT = 0
uids = st.integers(0, 5)
steps = st.lists(st.tuples(uids, st.booleans()), max_size=300)


@given(st.integers(1, 60), st.integers(0, 20), st.integers(1, 100), steps)
def test_nobody_takes_more_than_there_is_nor_what_is_reserved(
    capacity: int, reserved: int, uid_percent: int, steps: list[tuple[int, bool]]
) -> None:
    reserved = min(reserved, capacity - 1)
    held = Shares(Rule(capacity, reserved, uid_percent / 100), {ROOT})
    for uid, takes in steps:
        if takes and held.has_room(uid):
            held.change(uid, 1)
        elif not takes and held.held(held.holder(uid)):
            held.change(uid, -1)
        privileged = held.held(PRIVILEGED)
        assert held.total <= capacity
        assert held.total - privileged <= capacity - reserved
        assert held.has_room(ROOT) or privileged >= reserved


@given(st.integers(10, 60), st.integers(0, 5), steps)
def test_who_comes_gets_in_until_all_who_want_more_have_the_same(
    capacity: int, reserved: int, steps: list[tuple[int, bool]]
) -> None:
    held = Shares(Rule(capacity, reserved), {ROOT})

    def comes(uid: int) -> bool:
        if not held.has_room(uid):
            largest = held.gives_way(uid)
            if largest is None:
                return False
            held.change(ROOT if largest == PRIVILEGED else largest, -1)
        held.change(uid, 1)
        return True

    for uid, _ in steps:
        comes(uid)
    wanting = sorted({uid for uid, _ in steps if uid != ROOT})
    while any(comes(uid) for uid in wanting):
        pass
    if wanting:
        counts = [held.held(uid) for uid in wanting]
        assert max(counts) - min(counts) <= 1
    assert held.total <= capacity
