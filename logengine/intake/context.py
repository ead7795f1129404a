"""What all senders of a daemon share."""

from collections.abc import Callable
from dataclasses import dataclass

from logengine.format.record import Peer
from logengine.intake.admission import Admission
from logengine.intake.arrivals import Arrivals
from logengine.intake.poller import Poller
from logengine.intake.producers import Producers
from logengine.protocols.status import Status

# At most so much is read at once, and a datagram may always be as long.
RECEIVE_BYTES = 256 * 1024


@dataclass(frozen=True)
class IntakeContext:
    """The parts of a server that whoever reads a socket works with.

    `max_record` is in bytes. `add_stream` gives a stream its place, or raises `TooManyStreams`.
    `status` is how the daemon is, or None for a peer that is not to know.
    """

    poller: Poller
    admission: Admission
    arrivals: Arrivals
    producers: Producers
    max_record: int
    add_stream: Callable[[str], None]
    status: Callable[[Peer], Status | None]
