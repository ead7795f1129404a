"""The parts of the server that all readers of sockets share."""

from collections.abc import Callable
from dataclasses import dataclass

from logengine.format.record import Peer
from logengine.intake.admission import Admission
from logengine.intake.arrivals import Arrivals
from logengine.intake.hello_timeout import HelloTimeout
from logengine.intake.poller import Poller
from logengine.intake.producers import Producers
from logengine.intake.seats import Seats
from logengine.protocols.status import Status

# The most that one read returns. A datagram of this size is always accepted.
RECEIVE_BYTES = 256 * 1024


@dataclass(frozen=True)
class IntakeContext:
    """The parts of a server that a connection or a datagram socket works with.

    `max_record` is in bytes. `add_stream` admits a stream, or raises `TooManyStreams`. `status`
    returns the daemon's status, or None for a peer that may not know it.
    """

    poller: Poller
    admission: Admission
    arrivals: Arrivals
    producers: Producers
    seats: Seats
    hello_timeout: HelloTimeout
    max_record: int
    add_stream: Callable[[str], None]
    status: Callable[[Peer], Status | None]
