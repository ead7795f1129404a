"""Accepted connections that wait until their user may have one more.

They are accepted nevertheless, because only then is it known whose they are: in the listener's
backlog, those of a user who has enough would stand before those of another. They are not read.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from logengine.intake.network import Network
from logengine.intake.router import Router
from logengine.intake.shares import PRIVILEGED, Shares
from logengine.protocols.wire import Opening, Receiver, WireProtocol

log = structlog.get_logger()

GUESTS_MAX = 512
# The longest status request that is recognised while its connection waits.
_REQUEST_BYTES = 256
# A full room refuses nobody sooner, so that a sender has written its first records by then, and
# reads why it is refused instead of getting EPIPE.
_STAY_MIN_S = 0.05

# A full room is looked at again after this time, or when a connection ends.
_FULL_PAUSE_S = 1.0

TOO_MANY = "too_many_connections"
# For a sender that asks for no answers: without an error, end of file means that all is durable.
SEND_AGAIN = "that you send it all again, later: not all of it is known to be on disk"


@dataclass(frozen=True, eq=False)
class Guest:
    """An accepted connection to a listener with this stream and protocol."""

    connection: socket.socket
    uid: int
    stream: str
    protocol: WireProtocol
    since_s: float
    router: Router | None = None
    network: Network | None = None
    address: str | None = None  # in the network


class WaitingRoom:
    """At most `guests_max` guests.

    If one more comes, the oldest guest of the user who has the most is refused. If all are of root
    and the daemon's user, nobody is refused, and no more are accepted.
    `on_status` is called with a guest that left because root or the daemon's user asks for the
    status, which is always answered.
    """

    def __init__(self, shares: Shares, guests_max: int, on_status: Callable[[Guest], None]) -> None:
        self._shares = shares
        self._guests_max = guests_max
        self._on_status = on_status
        self._loop = asyncio.get_running_loop()
        self._guests: dict[int, dict[Guest, None]] = {}  # of each holder, the oldest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def room_in_s(self) -> float:
        """Returns after how many seconds `add` may be called; 0 for now."""
        if self._count < self._guests_max:
            return 0.0
        first_to_go = self._first_to_go()
        if first_to_go is None:
            return _FULL_PAUSE_S
        return max(0.0, first_to_go.since_s + _STAY_MIN_S - self._loop.time())

    def add(self, guest: Guest) -> None:
        """Lets `guest` wait. If the room is full, it refuses another one."""
        if self._count >= self._guests_max and (first_to_go := self._first_to_go()):
            self._remove(first_to_go)
            refuse(first_to_go)
        holder = self._shares.holder(guest.uid)
        self._guests.setdefault(holder, {})[guest] = None
        self._count += 1
        if holder == PRIVILEGED:
            self._loop.add_reader(guest.connection, self._look, guest)

    def waiting(self) -> list[Guest]:
        """Returns the guest of each user that has waited longest."""
        return [next(iter(guests)) for guests in self._guests.values()]

    def take(self) -> Guest | None:
        """Takes the next guest that may have a connection: of the user who has the fewest."""
        free = [holder for holder in self._guests if self._may_enter(holder)]
        if not free:
            return None
        guest = next(iter(self._guests[self._shares.smallest(free)]))
        self._remove(guest)
        return guest

    def take_all(self) -> list[Guest]:
        """Takes all guests, whoever they are."""
        guests = [guest for guests in self._guests.values() for guest in guests]
        for guest in guests:
            self._remove(guest)
        return guests

    def close(self) -> None:
        """Refuses all guests."""
        for guest in self.take_all():
            refuse(guest)

    def _first_to_go(self) -> Guest | None:
        others = [holder for holder in self._guests if holder != PRIVILEGED]
        if not others:
            return None
        return next(iter(self._guests[max(others, key=lambda holder: len(self._guests[holder]))]))

    def _may_enter(self, holder: int) -> bool:
        return self._shares.has_room(next(iter(self._guests[holder])).uid)

    def _remove(self, guest: Guest) -> None:
        holder = self._shares.holder(guest.uid)
        guests = self._guests[holder]
        del guests[guest]
        if not guests:
            del self._guests[holder]
        self._count -= 1
        if holder == PRIVILEGED:
            self._loop.remove_reader(guest.connection)

    def _look(self, guest: Guest) -> None:
        """Lets a guest leave that asks for the status; looks at no other one again."""
        self._loop.remove_reader(guest.connection)
        try:
            waiting = guest.connection.recv(_REQUEST_BYTES, socket.MSG_PEEK)
        except OSError:
            return
        # Its size limit is of no account here.
        if guest.protocol.receiver(_REQUEST_BYTES).opening(waiting) is Opening.STATUS:
            self._remove(guest)
            self._on_status(guest)


def refuse(guest: Guest) -> None:
    """Tells a guest that there are too many connections, and closes its own."""
    log.warning("connection_refused", uid=guest.uid, reason=TOO_MANY)
    answers = guest.protocol.answers
    if sends_record(guest.connection, guest.protocol.receiver(_REQUEST_BYTES)):
        answer = answers.error(TOO_MANY, expected=SEND_AGAIN)
    else:
        answer = answers.goodbye(TOO_MANY)
    with contextlib.suppress(OSError):  # the sender is gone
        guest.connection.send(answer)
    guest.connection.close()


def sends_record(connection: socket.socket, receiver: Receiver) -> bool:
    """Whether the first thing that was sent, and is not read yet, is a record and not a hello."""
    try:
        waiting = connection.recv(_REQUEST_BYTES, socket.MSG_PEEK)
    except OSError:
        return False  # nothing was sent
    return bool(waiting) and receiver.opening(waiting) is Opening.RECORD
