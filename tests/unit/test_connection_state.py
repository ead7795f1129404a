"""What may happen to a connection, and what follows."""

import itertools

import pytest

from logengine.intake.connection_state import (
    TRANSITIONS,
    Happening,
    ImpossibleHappening,
    State,
    state_after,
)

ALIVE = [state for state in State if not state.is_closed]


def after(*happenings: Happening) -> State:
    state = State.OPEN
    for happening in happenings:
        state = state_after(state, happening)
    return state


def test_a_connection_can_be_closed_in_every_state_and_only_once() -> None:
    for state in ALIVE:
        assert state_after(state, Happening.CLOSE) is State.CLOSED
    assert TRANSITIONS[State.CLOSED] == {}


def test_every_state_comes_about() -> None:
    reached = {State.OPEN}
    for _ in State:
        reached |= {following for state in reached for following in TRANSITIONS[state].values()}
    assert reached == set(State)


def test_each_happening_changes_one_thing_and_nothing_else() -> None:
    changed = {
        Happening.HELLO: "is_greeting",
        Happening.WELCOME: "is_greeting",
        Happening.END: "is_ended",
        Happening.STOP: "is_stopping",
    }
    for state in ALIVE:
        for happening, following in TRANSITIONS[state].items():
            if happening is Happening.CLOSE:
                continue
            for name in ("is_greeting", "is_ended", "is_stopping"):
                was, is_now = getattr(state, name), getattr(following, name)
                assert (was != is_now) == (name == changed[happening]), (state, happening)


def test_only_who_goes_on_and_waits_for_no_welcome_is_read() -> None:
    for state in State:
        assert state.is_read == (not state.is_greeting and not state.is_ended)


@pytest.mark.parametrize(
    "order", list(itertools.permutations([Happening.STOP, Happening.END, Happening.HELLO]))
)
def test_stop_end_and_hello_lead_to_one_state_in_any_possible_order(
    order: tuple[Happening, ...],
) -> None:
    if order.index(Happening.HELLO) < order.index(Happening.END):
        with pytest.raises(ImpossibleHappening, match="END in state"):
            after(*order)  # nothing is read, the end included, before the welcome
    else:
        assert after(*order) is State.CUT_OFF_GREETING
        assert after(*order, Happening.WELCOME) is State.CUT_OFF


def test_what_cannot_happen_is_named() -> None:
    with pytest.raises(ImpossibleHappening, match="WELCOME in state OPEN"):
        after(Happening.WELCOME)
