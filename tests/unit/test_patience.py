"""Which senders are taken for waiting ones."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from logengine.intake.patience import Patience

MANY = 30


def test_a_sender_waits_as_long_as_it_comes_back_at_once_after_each_answer() -> None:
    patience = Patience()
    for round_ in range(MANY):
        assert patience.waits(round_ * 0.01, is_outstanding=False, commit_s=0.0)
        patience.answered(round_ * 0.01 + 0.0095)


def test_a_sender_that_did_otherwise_waits_again_after_a_while() -> None:
    patience = Patience()
    assert not patience.waits(0.0, is_outstanding=True, commit_s=0.0)
    waits = []
    for round_ in range(MANY):
        patience.answered(float(round_))
        waits.append(patience.waits(float(round_), is_outstanding=False, commit_s=0.0))
    assert not waits[0]
    assert waits[-1]
    assert not any(before and not after for before, after in pairwise(waits)), "it goes on to wait"


def test_a_sender_that_writes_more_before_its_answer_does_not_wait() -> None:
    patience = Patience()
    for round_ in range(MANY):
        patience.answered(float(round_))
        assert not patience.waits(float(round_), is_outstanding=round_ % 5 == 0, commit_s=0.0)


def test_a_sender_that_takes_its_time_after_an_answer_does_not_wait() -> None:
    patience = Patience()
    for round_ in range(MANY):
        patience.answered(float(round_))
        late_s = 0.5 if round_ % 5 == 0 else 0.0
        assert not patience.waits(round_ + late_s, is_outstanding=False, commit_s=0.0)


def test_a_sender_that_always_came_back_at_once_may_be_late_once() -> None:
    patience = Patience()

    def waits(late_s: float) -> bool:
        patience.answered(0.0)
        return patience.waits(late_s, is_outstanding=False, commit_s=0.0)

    assert all(waits(0.0) for _ in range(MANY))
    assert waits(0.5)
    assert all(waits(0.0) for _ in range(MANY))
    assert waits(0.5)
    assert not waits(0.5)


def test_where_commits_take_long_a_sender_that_waits_may_come_back_later() -> None:
    for commit_s, late_s, waits in [(0.0, 0.003, False), (0.004, 0.003, True), (9.0, 0.011, False)]:
        patience = Patience()
        for round_ in range(MANY):
            patience.answered(float(round_))
            now_s = round_ + late_s
            assert patience.waits(now_s, is_outstanding=False, commit_s=commit_s) is waits


def test_a_sender_that_stops_waiting_is_noticed_at_once() -> None:
    patience = Patience()
    for round_ in range(MANY):
        patience.answered(float(round_))
        patience.waits(float(round_), is_outstanding=False, commit_s=0.0)
    assert patience.waits(float(MANY), is_outstanding=False, commit_s=0.0)
    assert not patience.waits(float(MANY), is_outstanding=True, commit_s=0.0)


@given(st.floats(0, 0.01), st.floats(0.001, 0.05))
def test_senders_at_a_pace_of_their_own_are_not_taken_for_waiting(
    begin_s: float, commit_every_s: float
) -> None:
    """Of a sender with a record each 10 ms, and commits at any other pace."""
    patience = Patience()
    committed_s, acked = 0.0, 0
    waited = 0
    for sent in range(400):
        now_s = begin_s + sent * 0.01
        while committed_s + commit_every_s <= now_s:
            committed_s += commit_every_s
            if sent > acked:
                acked = sent
                patience.answered(committed_s)
        waited += patience.waits(now_s, is_outstanding=sent > acked, commit_s=0.0)
    # With the same pace, a commit may always end right before the next record, by chance.
    if abs(commit_every_s - 0.01) > 0.003 and commit_every_s > 0.003:
        assert waited <= 40
