"""The states of a connection, and what leads from one to the next, as a table.

Two sides end a connection, and each on its own: the sender, by end of file, and the daemon, by
a stop. In each of the four states that gives, a producer's hello may wait for its welcome.

                      the sender goes on       the sender has ended
    the daemon        OPEN                     ENDED
     goes on          GREETING                 ENDED_GREETING
    the daemon        STOPPING                 CUT_OFF
     stops            STOPPING_GREETING        CUT_OFF_GREETING

The model is h11's `_state.py`.
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Where a connection is in its life.

    A connection is read in OPEN, and in STOPPING, where what had come before the stop is taken.
    An ENDED one stays until all it sent is durable; so does one that was CUT_OFF by a stop. While
    GREETING nothing is read, because the numbers of what comes next are not known.
    """

    # is: read, greeting, ended, stopping, closed
    OPEN = (True, False, False, False, False)
    GREETING = (False, True, False, False, False)
    ENDED = (False, False, True, False, False)
    ENDED_GREETING = (False, True, True, False, False)
    STOPPING = (True, False, False, True, False)
    STOPPING_GREETING = (False, True, False, True, False)
    CUT_OFF = (False, False, True, True, False)
    CUT_OFF_GREETING = (False, True, True, True, False)
    CLOSED = (False, False, True, False, True)

    def __init__(self, *is_: bool) -> None:
        # Attributes, because each read and each ack asks, and to look into a set takes longer.
        self.is_read, self.is_greeting, self.is_ended, self.is_stopping, self.is_closed = is_


class Happening(Enum):
    """What leads from one state to the next."""

    HELLO = auto()  # of a named producer; any other is answered at once
    WELCOME = auto()
    END = auto()  # nothing more comes from the sender
    STOP = auto()  # of the daemon
    CLOSE = auto()


class ImpossibleHappening(Exception):
    """Something happened to a connection that cannot happen in its state: a fault of ours."""


TRANSITIONS: Mapping[State, Mapping[Happening, State]] = {
    State.OPEN: {
        Happening.HELLO: State.GREETING,
        Happening.END: State.ENDED,
        Happening.STOP: State.STOPPING,
        Happening.CLOSE: State.CLOSED,
    },
    State.GREETING: {
        Happening.WELCOME: State.OPEN,
        Happening.STOP: State.STOPPING_GREETING,
        Happening.CLOSE: State.CLOSED,
    },
    State.ENDED: {
        # A hello may be a last line without a newline.
        Happening.HELLO: State.ENDED_GREETING,
        Happening.STOP: State.CUT_OFF,
        Happening.CLOSE: State.CLOSED,
    },
    State.ENDED_GREETING: {
        Happening.WELCOME: State.ENDED,
        Happening.STOP: State.CUT_OFF_GREETING,
        Happening.CLOSE: State.CLOSED,
    },
    State.STOPPING: {
        Happening.HELLO: State.STOPPING_GREETING,
        Happening.END: State.CUT_OFF,
        Happening.CLOSE: State.CLOSED,
    },
    State.STOPPING_GREETING: {
        Happening.WELCOME: State.STOPPING,
        Happening.CLOSE: State.CLOSED,
    },
    State.CUT_OFF: {
        Happening.HELLO: State.CUT_OFF_GREETING,
        Happening.CLOSE: State.CLOSED,
    },
    State.CUT_OFF_GREETING: {
        Happening.WELCOME: State.CUT_OFF,
        Happening.CLOSE: State.CLOSED,
    },
    State.CLOSED: {},
}


def state_after(state: State, happening: Happening) -> State:
    """The state that follows. Raises `ImpossibleHappening` if there is none."""
    try:
        return TRANSITIONS[state][happening]
    except KeyError:
        raise ImpossibleHappening(f"{happening.name} in state {state.name}") from None
