"""Writes the answers to one sender without blocking; what waits to be written is bounded."""

import asyncio
import socket
from collections.abc import Callable

# When more than this waits for a sender that does not read its answers, it is not read either.
ANSWERS_BYTES_MAX = 64 * 1024


class AnswerWriter:
    """Writes answers to the sender at the other end of a socket, in order.

    Only the latest ack waits. `encode_ack` returns the bytes of an ack. `on_written` is called when
    the answers that waited for the sender to read are all written. Once writing fails, nothing more
    is written, and the sender counts as one that wants no answers.
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
        """Whether so many answers wait that the sender must not be read."""
        return len(self._waiting) > ANSWERS_BYTES_MAX

    def ack(self, number: int) -> None:
        """Acknowledges all records up to `number` as durable."""
        self._ack_due = number
        if not self.is_blocked:
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
        """Writes nothing more, and drops `on_written`. Call it before closing the socket."""
        self._on_written = _nothing  # breaks a cycle that only the garbage collector would free
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
                # The sender is gone; what it sent is still read and committed.
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
