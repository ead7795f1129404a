"""The parts of the server that all readers of sockets share."""

from collections.abc import Callable
from dataclasses import dataclass

from logengine.format.record import Peer
from logengine.intake.admission import Admission
from logengine.intake.arrivals import Arrivals
from logengine.intake.chunks import Chunks
from logengine.intake.hello_timeout import HelloTimeout
from logengine.intake.poller import Poller
from logengine.intake.pressure_drops import PressureDrops
from logengine.intake.producers import Producers
from logengine.intake.seats import Seats
from logengine.intake.stream_names import StreamNames
from logengine.protocols.status import Status

# The most that one read returns. A datagram of this size is always accepted.
RECEIVE_BYTES = 256 * 1024


@dataclass(frozen=True)
class IntakeContext:
    """The parts of a server that a connection or a datagram socket works with.

    `max_record` is in bytes. `status` returns the daemon's status, or None for a peer that may not
    know it.
    """

    poller: Poller
    admission: Admission
    arrivals: Arrivals
    producers: Producers
    chunks: Chunks
    seats: Seats
    hello_timeout: HelloTimeout
    stream_names: StreamNames
    pressure_drops: PressureDrops
    max_record: int
    status: Callable[[Peer], Status | None]
