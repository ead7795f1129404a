"""Who of many sockets can be read, a few at a time.

The event loop itself handles all that can be read in one turn. With a thousand senders
that is ten milliseconds, and a commit takes several turns. Here the loop watches one
epoll(7) for all of them, and each of its turns reads a bounded number.

Unlike libuv's poll, which stops for good at a socket with an error on it, this one goes on
until it is told to stop: what a sender left before it was gone is read.
"""

import asyncio
import select
import socket
from collections.abc import Callable

# So many reads take about a third of a millisecond, a bare commit half of one.
READS_PER_TURN = 64


class Poller:
    """Calls back for sockets with something to read, an error, or a sender that is gone."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.turns = 0  # begun so far
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def add(self, watched: socket.socket, callback: Callable[[], None]) -> None:
        """Calls `callback` whenever there is something to read from `watched`."""
        descriptor = watched.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = callback

    def remove(self, watched: socket.socket) -> None:
        """Stops that; before the socket is closed."""
        descriptor = watched.fileno()
        del self._callbacks[descriptor]
        self._epoll.unregister(descriptor)

    def watches(self, watched: socket.socket) -> bool:
        """Whether somebody is called back for `watched`."""
        return watched.fileno() in self._callbacks

    def close(self) -> None:
        """Ends it; nothing is watched any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _turn(self) -> None:
        self.turns += 1
        for descriptor, _ in self._epoll.poll(0, READS_PER_TURN):
            # One of those before may have closed it.
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                callback()
