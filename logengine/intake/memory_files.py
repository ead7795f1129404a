"""Memory files (memfd_create(2)) that carry what is too large for a datagram.

A sender passes a descriptor along with an empty datagram. It may be one of anything: of a pipe,
which blocks whoever reads it, or of a file that another process truncates meanwhile. So only a
memory file that nobody can change any more is read, which its seals prove.

Closing a descriptor may block as well, for as long as a sender's own file system (FUSE) likes.
Only memory files are closed at once.
"""

import array
import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from fcntl import fcntl

from logengine.errors import MalformedInput
from logengine.intake.credentials import Ancillary

# fcntl(2) of Linux; some builds of Python have no names for these.
_F_GET_SEALS = 1034
_SEALS = {1: "F_SEAL_SEAL", 2: "F_SEAL_SHRINK", 4: "F_SEAL_GROW", 8: "F_SEAL_WRITE"}
# Options of a socket (unix(7)), which systemd may have set. What they add would take the room of a
# descriptor, and a pidfd is a descriptor itself.
_SO_PASSSEC, _SO_PASSPIDFD = 34, 76
_DESCRIPTOR = array.array("i", [0])
# Of a datagram with more descriptors, the kernel closes those for which there is no room, and says
# so. Because of alignment, there is room for two.
_DESCRIPTORS_BYTES = socket.CMSG_SPACE(_DESCRIPTOR.itemsize)
_DESCRIPTORS_MAX = 2
# While so many descriptors are being closed, no others are received.
CLOSING_MAX = 16


class MemoryFiles:
    """Reads the memory files that are passed to `receiving`, and closes all that is passed."""

    def __init__(self, receiving: socket.socket) -> None:
        for option in (_SO_PASSSEC, _SO_PASSPIDFD):
            with contextlib.suppress(OSError):  # the kernel does not have it
                receiving.setsockopt(socket.SOL_SOCKET, option, 0)
        self._closing: list[threading.Thread] = []

    @property
    def ancillary_bytes(self) -> int:
        """How much ancillary data to receive beyond the sender; 0 for no descriptors."""
        if self._closing:
            self._closing = [thread for thread in self._closing if thread.is_alive()]
        return _DESCRIPTORS_BYTES if len(self._closing) + _DESCRIPTORS_MAX <= CLOSING_MAX else 0

    def take(self, ancillary: Ancillary, flags: int, size_bytes: int, buffer: memoryview) -> int:
        """Returns the size of a datagram, whose content is in `buffer` unless it is too large.

        Of an empty datagram that came with a descriptor, the content is that of the memory file,
        which is read into `buffer`. `ancillary`, `flags` and `size_bytes` are what recvmsg(2)
        returned. Raises `MalformedInput` if there is not exactly one descriptor, or if it is not
        one of a sealed memory file.
        """
        descriptors = _descriptors_in(ancillary)
        try:
            if size_bytes:
                return size_bytes
            if flags & socket.MSG_CTRUNC:
                raise MalformedInput(
                    "not every descriptor could be received; expected one, with descriptors free "
                    "in the daemon"
                )
            if not descriptors:
                return 0
            if len(descriptors) > 1:
                raise MalformedInput(f"{len(descriptors)} descriptors; expected one")
            return _read(descriptors[0], buffer)
        finally:
            for descriptor in descriptors:
                self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if _seals(descriptor) is None:
            thread = threading.Thread(
                target=_close, args=(descriptor,), name="close-passed", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads
                _close(descriptor)
            else:
                self._closing.append(thread)
        else:
            _close(descriptor)


def _descriptors_in(ancillary: Ancillary) -> Sequence[int]:
    descriptors = array.array("i")
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(packed[: len(packed) - len(packed) % descriptors.itemsize])
    return descriptors


def _close(descriptor: int) -> None:
    # Whatever close(2) returns, the descriptor is free.
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _seals(descriptor: int) -> int | None:
    """Returns the seals of a file in memory; None for a descriptor of anything else."""
    try:
        return fcntl(descriptor, _F_GET_SEALS)
    except OSError:
        return None


def _read(descriptor: int, buffer: memoryview) -> int:
    """Reads a sealed memory file into `buffer`, unless it is larger. Returns its size.

    Raises `MalformedInput`.
    """
    seals = _seals(descriptor)
    if seals is None:
        raise MalformedInput("the descriptor is not one of a memory file (memfd_create(2))")
    if missing := [name for seal, name in _SEALS.items() if not seals & seal]:
        raise MalformedInput(
            f"the memory file has no {', '.join(missing)}; expected {', '.join(_SEALS.values())}"
        )
    try:
        size_bytes = os.fstat(descriptor).st_size
        place = 0
        while place < size_bytes <= len(buffer):
            count = os.preadv(descriptor, [buffer[place:size_bytes]], place)
            if not count:
                raise MalformedInput(f"the memory file ends after {place} of {size_bytes} bytes")
            place += count
    except OSError as error:
        raise MalformedInput(f"the memory file cannot be read: {error.strerror}") from error
    return size_bytes
