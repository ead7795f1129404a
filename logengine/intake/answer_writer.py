"""The answers to one sender, written without blocking, and bounded by what it reads."""

import asyncio
import socket
from collections.abc import Callable

# To a sender that does not read its answers, no more than these wait; then it is not read.
ANSWERS_BYTES_MAX = 64 * 1024


class AnswerWriter:
    """What the sender at the other end of a socket is to be told, in order.

    Of acks only the latest waits. `encode_ack` gives the bytes of one; `on_written` is called
    when all is written that had to wait for the sender to read. To a sender that cannot hear any
    more nothing is written, and it counts as one that wants no answers.
    """

    def __init__(
        self,
        connection: socket.socket,
        encode_ack: Callable[[int], bytes],
        on_written: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._encode_ack = encode_ack
        self._on_written = on_written
        self._waiting = bytearray()
        self._ack_due = 0
        self.are_wanted = False
        self.is_blocked = False  # until the kernel takes more

    @property
    def are_too_many(self) -> bool:
        """Whether the sender leaves so many unread that it is not to be read either."""
        return len(self._waiting) > ANSWERS_BYTES_MAX

    def ack(self, number: int) -> None:
        """Says that all records up to `number` are durable."""
        self._ack_due = number
        self._write()

    def say(self, answer: bytes) -> None:
        """Adds an answer."""
        self._waiting += answer
        self._write()

    def say_last(self, answer: bytes) -> None:
        """Adds an answer after which there are no more acks."""
        self.are_wanted = False
        self.say(answer)

    def close(self) -> None:
        """Writes nothing more, and lets go of `on_written`. Before the socket is closed."""
        self._on_written = _nothing  # or only the collector could free who gave it
        if self.is_blocked:
            self.is_blocked = False
            self._loop.remove_writer(self._socket)

    def _write(self) -> None:
        if self.is_blocked:
            return
        while True:
            if self._ack_due and not self._waiting:
                self._waiting += self._encode_ack(self._ack_due)
                self._ack_due = 0
            if not self._waiting:
                break
            try:
                sent = self._socket.send(self._waiting)
            except (BlockingIOError, InterruptedError):
                self.is_blocked = True
                self._loop.add_writer(self._socket, self._on_writable)
                return
            except OSError:
                # Nobody hears any more; what was sent is read and committed even so.
                self.are_wanted = False
                self._waiting.clear()
                self._ack_due = 0
                return
            del self._waiting[:sent]

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self.is_blocked = False
        self._write()
        if not self.is_blocked:
            self._on_written()


def _nothing() -> None:
    pass
