"""Unix stream sockets in memory, and the epoll that watches them.

Bytes move immediately into the other end's buffer, as in the kernel. The other end is notified
after a delay, and each delay is drawn.
"""

import errno
import os
import random
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.clock import Kernel, Process

if TYPE_CHECKING:
    from tests.simulation.loop import SimulatedLoop

Call = Callable[[], None]
OnSent = Callable[[bytes], None]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class End:
    """One end of a connection, with the methods that the engine calls on a socket."""

    family = socket.AF_UNIX

    def __init__(self, network: "Network", number: int, capacity_bytes: int) -> None:
        self._network = network
        self.number = number
        self.capacity_bytes = capacity_bytes
        self.received = bytearray()
        self.peer: End = self
        self.is_closed = False
        self.is_ended = False  # the other end has shut down writing
        self.is_shut_for_reading = False
        self.is_reset = False
        self.epoll: Epoll | None = None
        self.loop: SimulatedLoop | None = None  # notified when there is room for writing
        self.on_event: Call | None = None  # for an end that the engine does not use
        self._event_is_due = False
        self.uid = 0
        # Called with the bytes that this end sends, before the other end has them.
        self.on_sent: OnSent = lambda _: None
        self.on_closed: Call = lambda: None

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def fileno(self) -> int:
        return -1 if self.is_closed else self.number

    def setblocking(self, flag: bool) -> None:
        pass

    @property
    def is_readable(self) -> bool:
        return bool(self.received) or self.is_ended or self.is_reset or self.is_shut_for_reading

    @property
    def room_bytes(self) -> int:
        """How much room the other end's buffer has now."""
        return self.peer.capacity_bytes - len(self.peer.received)

    @property
    def is_writable(self) -> bool:
        return self.is_closed or self.peer.is_closed or self.room_bytes > 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.is_closed:
            raise _error(errno.EBADF)
        received = self.received
        if received:
            data = bytes(received[:size])
            if not flags & socket.MSG_PEEK:
                del received[:size]
                self.peer.tell()
            return data
        if self.is_reset:
            self.is_reset = False
            self.is_ended = True
            raise _error(errno.ECONNRESET)
        if self.is_ended or self.is_shut_for_reading:
            return b""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def send(self, data: Any) -> int:
        if self.is_closed:
            raise _error(errno.EBADF)
        peer = self.peer
        if peer.is_closed or peer.is_shut_for_reading:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        room = self.room_bytes
        if room <= 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        part = bytes(data[:room])
        self.on_sent(part)
        peer.received += part
        peer.tell()
        return len(part)

    def shutdown(self, how: int) -> None:
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self.peer.is_ended = True
            self.peer.tell()
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self.is_shut_for_reading = True
            self.tell()
            self.peer.tell()

    def close(self) -> None:
        if self.is_closed:
            return
        self.on_closed()
        self.is_closed = True
        if self.epoll is not None:
            self.epoll.forget(self)
        peer = self.peer
        if not peer.is_closed:
            # As the kernel does if something was left unread.
            peer.is_reset = peer.is_reset or bool(self.received)
            peer.is_ended = True
            peer.tell()

    def tell(self) -> None:
        """Notifies this end, and whatever watches it, that something happened."""
        if self.is_closed:
            return
        if self.epoll is not None:
            self.epoll.tell(self)
        if self.loop is not None:
            self.loop.look()
        if self.on_event is not None and not self._event_is_due:
            self._event_is_due = True
            self._network.kernel.after(self._network.delay_s(), self._happen)

    def _happen(self) -> None:
        self._event_is_due = False
        if self.on_event is not None and not self.is_closed:
            self.on_event()


class Listener:
    """A listening socket; it may outlive the process that accepts from it."""

    def __init__(self, network: "Network") -> None:
        self._network = network
        self.number = network.next_number()
        self.backlog: deque[End] = deque()
        self.loop: SimulatedLoop | None = None
        self.is_closed = False
        self.accept_errors = 0  # how many of the next accepts fail

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def setblocking(self, flag: bool) -> None:
        pass

    def fileno(self) -> int:
        return self.number

    @property
    def is_readable(self) -> bool:
        return bool(self.backlog) or bool(self.accept_errors)

    def accept(self) -> tuple[End, Any]:
        if self.accept_errors:
            self.accept_errors -= 1
            raise _error(errno.EMFILE)
        while self.backlog:
            end = self.backlog.popleft()
            end.loop = self.loop
            self._network.taken(end)
            return end, None
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def close(self) -> None:
        self.is_closed = True
        self.loop = None


class Epoll:
    """epoll(7), level-triggered, for ends of one process, or for other epolls."""

    def __init__(self, network: "Network") -> None:
        self._network = network
        self._watched: dict[_Number, End | Epoll] = {}
        self._perhaps: dict[_Number, End | Epoll] = {}  # those that may be ready
        self.epoll: Epoll | None = None  # that watches this one
        self.number = self
        self.closed = False
        self.loop: SimulatedLoop | None = network.loop

    def __hash__(self) -> int:
        return 7

    def fileno(self) -> "Epoll":
        return self  # the loop watches this object

    def register(self, number: "_Number", _mask: int) -> None:
        end = number if isinstance(number, Epoll) else self._network.ends[number]
        self._watched[number] = end
        end.epoll = self
        if end.is_readable:
            self.tell(end)

    def unregister(self, number: "_Number") -> None:
        self._watched.pop(number).epoll = None
        self._perhaps.pop(number, None)

    def forget(self, end: End) -> None:
        """Removes an end that is closed."""
        self._watched.pop(end.number, None)
        self._perhaps.pop(end.number, None)

    def tell(self, end: "End | Epoll") -> None:
        """Notes that an end may be ready."""
        if end.number not in self._watched:
            return
        if self.epoll is not None:
            self.epoll.tell(self)
        if end.number not in self._perhaps:
            self._perhaps[end.number] = end
            if self.loop is not None:
                self.loop.look()

    @property
    def is_readable(self) -> bool:
        return any(end.is_readable for end in self._perhaps.values())

    def poll(self, _timeout: float, most: int) -> list[tuple["_Number", int]]:
        for number in [n for n, end in self._perhaps.items() if not end.is_readable]:
            del self._perhaps[number]
        ready = list(self._perhaps)
        for number in ready[:most]:  # next time they come after the others
            self._perhaps[number] = self._perhaps.pop(number)
        return [(number, 1) for number in ready[:most]]

    def close(self) -> None:
        self.closed = True


_Number = int | Epoll  # of what is watched
OnTaken = Callable[[End], None]


class Network:
    """All connections of a world."""

    def __init__(self, kernel: Kernel, source: random.Random, latency_s: float) -> None:
        self.kernel = kernel
        self.source = source
        self._latency_s = latency_s
        self._numbers = 10
        self.ends: dict[int, End] = {}
        self.loop: SimulatedLoop | None = None  # of the running daemon
        self.on_taken: OnTaken = lambda _: None

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def delay_s(self) -> float:
        """The delay of a notification."""
        return self._latency_s * self.source.random() * 2

    def connect(self, listener: Listener, buffer_bytes: int) -> tuple[End, End]:
        """Adds a connection to the backlog; returns the client's and the daemon's end."""
        client = End(self, self.next_number(), buffer_bytes)
        server = End(self, self.next_number(), buffer_bytes)
        client.peer, server.peer = server, client
        self.ends[server.number] = server
        listener.backlog.append(server)
        if listener.loop is not None:
            listener.loop.look()
        return client, server

    def taken(self, end: End) -> None:
        """Reports that an end was accepted."""
        self.on_taken(end)

    def end_of(self, process: Process, listener: Listener | None) -> None:
        """Closes all ends of a process that is gone. Connections in the backlog keep waiting."""
        waiting = set(listener.backlog) if listener is not None else set()
        for end in list(self.ends.values()):
            if end not in waiting:
                end.on_closed = lambda: None  # this close promises nothing
                end.close()
                del self.ends[end.number]

    def forget_closed(self) -> None:
        """Drops closed ends."""
        for number in [n for n, end in self.ends.items() if end.is_closed]:
            del self.ends[number]
