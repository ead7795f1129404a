"""Polls many sockets and calls back for a bounded number of them per turn.

The event loop by itself handles all readable sockets in one turn. With a thousand senders such a
turn takes ten milliseconds, and a commit takes several turns. Here the loop watches one epoll(7)
for all senders, and each turn reads a bounded number of them.

libuv permanently stops polling a socket that has an error. This poller continues until it is told
to stop, so that what a sender wrote before it was gone is read.
"""

import asyncio
import select
import socket
from collections.abc import Callable

# This many reads take about a third of a millisecond; a bare commit takes half of one.
READS_PER_TURN = 64


class Poller:
    """Calls back for sockets that have data, an error, or a sender that is gone."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.turns = 0  # started so far
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def add(self, watched: socket.socket, callback: Callable[[], None]) -> None:
        """Calls `callback` whenever there is something to read from `watched`."""
        descriptor = watched.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = callback

    def remove(self, watched: socket.socket) -> None:
        """Stops watching `watched`. Call it before closing the socket."""
        descriptor = watched.fileno()
        del self._callbacks[descriptor]
        self._epoll.unregister(descriptor)

    def watches(self, watched: socket.socket) -> bool:
        """Whether `watched` has a callback."""
        return watched.fileno() in self._callbacks

    def close(self) -> None:
        """Stops watching all sockets."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _turn(self) -> None:
        self.turns += 1
        for descriptor, _ in self._epoll.poll(0, READS_PER_TURN):
            # An earlier callback of this turn may have closed the socket.
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                callback()
