"""The states of a connection and its transitions, as a table.

Each side can end a connection independently: the sender by end of file, the daemon by a stop. That
makes four states, and in each of them a producer's hello may wait for its welcome.

                      the sender is sending    the sender has ended
    the daemon        OPEN                     ENDED
     is running       GREETING                 ENDED_GREETING
    the daemon        STOPPING                 CUT_OFF
     is stopping      STOPPING_GREETING        CUT_OFF_GREETING

The model is h11's `_state.py`.
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """The state of a connection.

    A connection is read in OPEN, and in STOPPING, which reads what arrived before the stop. A
    connection that is ENDED, or CUT_OFF by a stop, stays until all it sent is durable. While
    GREETING nothing is read, because the numbers of the next records are not known yet.
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
        # Attributes: every read and every ack checks them, and a set lookup takes longer.
        self.is_read, self.is_greeting, self.is_ended, self.is_stopping, self.is_closed = is_


class Happening(Enum):
    """An event that leads from one state to the next."""

    HELLO = auto()  # of a named producer; any other hello is answered immediately
    WELCOME = auto()
    END = auto()  # end of file from the sender
    STOP = auto()  # of the daemon
    CLOSE = auto()


class ImpossibleHappening(Exception):
    """An event that is impossible in the state of its connection: a bug in the daemon."""


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
    """Returns the next state. Raises `ImpossibleHappening` if there is none."""
    try:
        return TRANSITIONS[state][happening]
    except KeyError:
        raise ImpossibleHappening(f"{happening.name} in state {state.name}") from None
