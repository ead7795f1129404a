"""File descriptors that the application may close, as programs do that become daemons.

`os.closerange(3, …)` closes the client's descriptors too, and the next file that is opened gets
the same number. Before each use, the client checks that the number still refers to its own file or
socket; otherwise it would write records into one of the application's files.

A program may also run without standard input, output and error. The client's sockets never get
these numbers: what a C library prints would reach the daemon as records, and end the client.
"""

import contextlib
import fcntl
import os
from _socket import socketpair
from pathlib import Path
from socket import MSG_NOSIGNAL, SOL_SOCKET, socket

RECEIVE_BYTES = 64 * 1024
_WAKE = b"\0"
_SO_COOKIE = 57  # socket(7), Linux 4.12; `socket` has no name for it
_COOKIE_BYTES = 8
_AFTER_STANDARD = 3


def above_standard(of: socket) -> socket:
    """Returns a new socket, moved if it has the number of standard input, output or error.

    The moved one has no timeout. Raises `OSError`.
    """
    if of.fileno() >= _AFTER_STANDARD:
        return of
    with of:
        return type(of)(fileno=fcntl.fcntl(of, fcntl.F_DUPFD_CLOEXEC, _AFTER_STANDARD))


class Descriptor:
    """A number, and the file, pipe or socket that it referred to when it was new."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity: tuple[int, int] | None = _identity(number)

    @property
    def is_ours(self) -> bool:
        """Whether the number still refers to the same file."""
        try:
            return _identity(self.number) == self._identity
        except OSError:
            return False

    def is_at(self, path: Path) -> bool:
        """Whether it refers to the file at `path`."""
        try:
            found = os.stat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        """Closes the descriptor once, if it still refers to the same file."""
        if self.is_ours:
            self._identity = None
            os.close(self.number)


def _identity(number: int) -> tuple[int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


class OwnSocket:
    """A socket that never blocks, identified by the kernel's cookie for it.

    The client's thread reads the cookie before each call. That does not release the interpreter's
    lock; `fstat` would, and getting it back from a busy application takes 5 ms each time. Kernels
    without these cookies, such as gVisor's, take `fstat`.
    """

    def __init__(self, of: socket) -> None:
        of.setblocking(False)
        self._socket = of
        self.number = of.fileno()
        self._has_cookie = True
        try:
            self._identity = self._ask()
        except OSError:
            self._has_cookie = False
            self._identity = self._ask()

    def _ask(self) -> object:
        if self._has_cookie:
            return self._socket.getsockopt(SOL_SOCKET, _SO_COOKIE, _COOKIE_BYTES)
        return _identity(self.number)

    @property
    def is_ours(self) -> bool:
        """Whether the number still refers to the same socket."""
        try:
            return self._ask() == self._identity
        except OSError:
            return False

    def send(self, data: bytes | memoryview) -> int:
        """Sends what the socket accepts now. Returns how many bytes. Raises `OSError`.

        Without a signal: an application may have given SIGPIPE its default action, which kills.
        """
        self._check()
        return self._socket.send(data, MSG_NOSIGNAL)

    def receive(self) -> bytes:
        """Returns the data received, empty at the end. Raises `OSError`."""
        self._check()
        return self._socket.recv(RECEIVE_BYTES)

    def _check(self) -> None:
        if not self.is_ours:
            raise ConnectionAbortedError("the application closed the client's file descriptor")

    def close(self) -> None:
        """Closes the socket, but not a number that refers to another file by now."""
        if self.is_ours:
            self._socket.close()
        else:
            with contextlib.suppress(Exception):
                self._socket.detach()


class Wakeup:
    """Ends the wait of the client's thread: from any thread, a signal handler, a `__del__`.

    A pair of sockets and not an eventfd: eventfds cannot be told apart, and closing one wakes no
    waiter, while a closed socket hangs up.
    """

    def __init__(self) -> None:
        # Not by `socket.socketpair`, which makes sockets of a class that tests may replace.
        pair = (socket(fileno=each.detach()) for each in socketpair())
        self._reading, self._writing = map(OwnSocket, map(above_standard, pair))

    @property
    def number(self) -> int:
        """The descriptor to poll until it is readable."""
        return self._reading.number

    @property
    def is_ours(self) -> bool:
        """Whether both sockets are still ours."""
        return self._reading.is_ours and self._writing.is_ours

    def set(self) -> bool:
        """Ends the wait, now or when it begins; False if the application closed the sockets."""
        try:
            if not self._reading.is_ours:
                return False
            self._writing.send(_WAKE)
        except BlockingIOError:
            return True  # full, so the thread wakes up anyway
        except OSError:
            return False
        return True

    def clear(self) -> None:
        """Reads the wake-ups, in the thread that was woken."""
        with contextlib.suppress(OSError):
            self._reading.receive()

    def close(self) -> None:
        """Closes both sockets."""
        self._reading.close()
        self._writing.close()
