"""Whose turn it is, and how much a read takes: decided without sockets and without a clock."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.intake.turns import (
    READ_BYTES_FIRST,
    READ_BYTES_MAX,
    READ_BYTES_MIN,
    READ_COST_S,
    DeficitRoundRobin,
    ReadSize,
)

QUANTUM_S = 0.25


def spent(cost_s: dict[str, float], total_s: float) -> Counter[str]:
    """What each flow gets of a long time; all of them always have work."""
    schedule: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM_S)
    for flow in cost_s:
        schedule.wait(flow)
    spent_s: Counter[str] = Counter()
    while spent_s.total() < total_s:
        flow = str(schedule.next())
        schedule.charge(flow, cost_s[flow])
        spent_s[flow] += cost_s[flow]  # type: ignore[assignment]
    return spent_s


def test_without_a_waiting_flow_it_is_nobodys_turn() -> None:
    assert DeficitRoundRobin[str](QUANTUM_S).next() is None


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.001, 3), min_size=1),
    st.floats(50, 200),
)
def test_flows_with_work_get_equal_time_whatever_one_read_costs(
    cost_s: dict[str, float], total_s: float
) -> None:
    shares_s = spent(cost_s, total_s)
    # Each may be one read, and one quantum, ahead of its share; that never adds up.
    most_s = 2 * (max(cost_s.values()) + QUANTUM_S)
    assert all(abs(shares_s[flow] - total_s / len(cost_s)) <= most_s for flow in cost_s)


def test_a_flow_with_little_work_waits_for_one_quantum_of_each_other() -> None:
    schedule: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM_S)
    for busy in ("a", "b", "c"):
        schedule.wait(busy)
    for _ in range(1000):
        schedule.charge(str(schedule.next()), 0.01)
    schedule.wait("small")
    waited_s = 0.0
    while (busy := str(schedule.next())) != "small":
        schedule.charge(busy, 0.01)
        waited_s += 0.01
    assert waited_s <= 3 * (QUANTUM_S + 0.01)


def test_a_flow_cannot_save_credit_while_it_has_nothing_to_do() -> None:
    schedule: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM_S)
    for _ in range(100):
        schedule.wait("a")
        assert schedule.next() == "a"
        assert schedule.credit_s("a") <= QUANTUM_S
        schedule.leave("a")


def test_a_debt_stays_when_a_flow_leaves_and_comes_again() -> None:
    schedule: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM_S)
    schedule.wait("a")
    schedule.charge("a", 100 * QUANTUM_S)
    schedule.leave("a")
    schedule.wait("a")
    schedule.wait("b")
    turns_of_b = 0
    while schedule.next() == "b":
        schedule.charge("b", QUANTUM_S)
        turns_of_b += 1
    assert 95 <= turns_of_b <= 100


def test_the_rounds_in_which_a_flow_is_away_pay_its_debt() -> None:
    schedule: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM_S)
    schedule.wait("a")
    schedule.charge("a", 10 * QUANTUM_S)
    schedule.leave("a")
    schedule.wait("b")
    for _ in range(100):
        schedule.charge(str(schedule.next()), QUANTUM_S)
    schedule.wait("a")
    assert schedule.credit_s("a") == QUANTUM_S


def test_a_debt_holds_up_nobody_where_no_other_flow_waits() -> None:
    schedule: DeficitRoundRobin[str] = DeficitRoundRobin(QUANTUM_S)
    schedule.wait("a")
    schedule.charge("a", 1e6)
    assert schedule.next() == "a"
    assert 0 < schedule.credit_s("a") <= QUANTUM_S


@given(st.lists(st.tuples(st.sampled_from(["wait", "next", "leave", "forget"]), st.integers(0, 5))))
def test_what_is_kept_is_bounded_by_the_flows_that_were_not_forgotten(
    steps: list[tuple[str, int]],
) -> None:
    schedule: DeficitRoundRobin[int] = DeficitRoundRobin(QUANTUM_S)
    known: set[int] = set()
    waiting: list[int] = []
    for step, flow in steps:
        if step == "wait":
            schedule.wait(flow)
            known.add(flow)
            waiting += [] if flow in waiting else [flow]
        elif step == "next":
            turn = schedule.next()
            assert (turn in waiting) if waiting else turn is None
            if turn is not None:
                schedule.charge(turn, QUANTUM_S)
        else:
            (schedule.leave if step == "leave" else schedule.forget)(flow)
            waiting = [each for each in waiting if each != flow]
            known -= {flow} if step == "forget" else set()
        assert schedule.waiting == len(waiting)
        assert schedule.flows == len(known)


def grown() -> ReadSize:
    size = ReadSize()
    while size.size_bytes < READ_BYTES_MAX:
        size.adapt(size.size_bytes, READ_COST_S / 100)
    return size


def test_reads_start_small_and_grow_while_they_are_cheap() -> None:
    assert ReadSize().size_bytes == READ_BYTES_FIRST
    assert grown().size_bytes == READ_BYTES_MAX


def test_short_reads_say_nothing_about_long_ones() -> None:
    size = ReadSize()
    for _ in range(100):
        size.adapt(READ_BYTES_FIRST - 1, READ_COST_S / 100)
    assert size.size_bytes == READ_BYTES_FIRST


@pytest.mark.parametrize("s_per_byte", [1e-9, 4e-8, 2e-7, 1e-6])
def test_a_read_costs_what_it_may_as_soon_as_its_cost_per_byte_is_known(s_per_byte: float) -> None:
    size = grown()
    for _ in range(50):
        size.adapt(size.size_bytes, size.size_bytes * s_per_byte)
        if size.size_bytes > READ_BYTES_MIN:
            assert size.size_bytes * s_per_byte <= READ_COST_S * 1.01
    assert READ_BYTES_MIN <= size.size_bytes <= READ_BYTES_MAX


def test_one_dear_read_among_cheap_ones_is_forgiven() -> None:
    size = grown()
    size.adapt(READ_BYTES_MAX, READ_COST_S * 100)
    assert size.size_bytes == READ_BYTES_MIN
    for _ in range(10):
        size.adapt(size.size_bytes, READ_COST_S / 100)
    assert size.size_bytes == READ_BYTES_MAX
