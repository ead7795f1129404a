"""File descriptors that the application may close, as those do that become daemons.

`os.closerange(3, …)` takes no notice of whose they are, and the next file that is opened has
the same number. Before each use it is asked whether the number still means the same thing:
else records would be written into a file of the application's.
"""

import contextlib
import os
from pathlib import Path
from socket import AF_UNIX, SOL_SOCKET, socket, socketpair

RECEIVE_BYTES = 64 * 1024
_WAKE = b"\0"
_SO_COOKIE = 57  # socket(7), Linux 4.12; `socket` has no name for it
_COOKIE_BYTES = 8


class Descriptor:
    """A number, and which file, pipe or socket it meant when it was new."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity: tuple[int, int] | None = _identity(number)

    @property
    def is_ours(self) -> bool:
        """Whether the number still means the same."""
        try:
            return _identity(self.number) == self._identity
        except OSError:
            return False

    def is_at(self, path: Path) -> bool:
        """Whether it means the file at `path`."""
        try:
            found = os.stat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        """Closes it, once, and if it is still the same."""
        if self.is_ours:
            self._identity = None
            os.close(self.number)


def _identity(number: int) -> tuple[int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


class OwnSocket:
    """A socket that never blocks, and knows itself by the kernel's cookie for it.

    Asking for that lets nobody else have the interpreter, where `fstat` would: the client's
    thread does it before each call, and beside a busy application each time costs 5 ms.
    """

    def __init__(self, of: socket) -> None:
        of.setblocking(False)
        self._socket = of
        self.number = of.fileno()
        self._cookie = self._ask()

    def _ask(self) -> bytes:
        return self._socket.getsockopt(SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES)

    @property
    def is_ours(self) -> bool:
        """Whether the number still means the same."""
        try:
            return self._ask() == self._cookie
        except OSError:
            return False

    def send(self, data: bytes | memoryview) -> int:
        """Sends what is taken at once; gives how many bytes that were. Raises `OSError`."""
        self._check()
        return self._socket.send(data)

    def receive(self) -> bytes:
        """What there is, empty at the end. Raises `OSError`."""
        self._check()
        return self._socket.recv(RECEIVE_BYTES)

    def _check(self) -> None:
        if not self.is_ours:
            raise ConnectionAbortedError("the application closed the client's file descriptor")

    def close(self) -> None:
        """Closes it; a number that is another's by now is left alone."""
        if self.is_ours:
            self._socket.close()
        else:
            with contextlib.suppress(Exception):
                self._socket.detach()


class Wakeup:
    """Ends the wait of the client's thread: from any thread, a signal handler, a `__del__`.

    A pair of sockets and not an eventfd: those cannot be told apart, and one whose number was
    closed says nothing, where a socket hangs up.
    """

    def __init__(self) -> None:
        self._reading, self._writing = map(OwnSocket, socketpair())

    @property
    def number(self) -> int:
        """What to wait for until it can be read."""
        return self._reading.number

    @property
    def is_ours(self) -> bool:
        """Whether it still works."""
        return self._reading.is_ours and self._writing.is_ours

    def set(self) -> bool:
        """Ends the wait, now or when it begins; False if the application closed the sockets."""
        try:
            if not self._reading.is_ours:
                return False
            self._writing.send(_WAKE)
        except BlockingIOError:
            return True  # full: it will be read
        except OSError:
            return False
        return True

    def clear(self) -> None:
        """For the thread that was woken."""
        with contextlib.suppress(OSError):
            self._reading.receive()

    def close(self) -> None:
        """Lets go of it."""
        self._reading.close()
        self._writing.close()


def connect(path: Path) -> OwnSocket:
    """A connection to the daemon that never blocks. Raises `OSError`."""
    connection = socket(AF_UNIX)
    try:
        connection.setblocking(False)
        connection.connect(os.fspath(path))
        return OwnSocket(connection)
    except BaseException:
        connection.close()
        raise
