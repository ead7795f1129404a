"""Space kept back on the disk, so that a stop on a full disk can commit what was received.

DATA/.reserve   a file of nothing, there for the space that it takes

Unlinking and its directory sync need none of it: on a full ext4 and xfs both succeed, and
give back what the file took. But a commit needs space for what it writes, and what its
senders were not acknowledged, and will not send again, waits in memory for just that.
"""

import contextlib
import os
import threading

from logengine.disk.directory import AnyDirectory, directory_at

RESERVE_NAME = ".reserve"


class Reserve:
    """A file of `size_bytes` in the data directory; 0 is none. Blocking calls, from any thread."""

    def __init__(self, data: AnyDirectory, size_bytes: int) -> None:
        self._data = directory_at(data)
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._is_released = False

    def hold(self) -> bool:
        """Makes the file, or makes it as long as it should be; False if there is no room now.

        There is room if as much again is left for the records. Raises `OSError` if that is
        not what keeps it from being made.
        """
        with self._lock:
            if self._is_released:
                return True
            if not self._size_bytes:
                with contextlib.suppress(FileNotFoundError):
                    self._data.unlink(RESERVE_NAME)
                return True
            descriptor = self._data.open_file(RESERVE_NAME, os.O_WRONLY | os.O_CREAT)
            try:
                held_bytes = os.fstat(descriptor).st_size
                if held_bytes < self._size_bytes:
                    found = os.fstatvfs(descriptor)
                    missing_bytes = self._size_bytes - held_bytes
                    if found.f_bavail * found.f_frsize < missing_bytes + self._size_bytes:
                        return False
                    os.posix_fallocate(descriptor, 0, self._size_bytes)
                elif held_bytes > self._size_bytes:
                    os.ftruncate(descriptor, self._size_bytes)
            finally:
                os.close(descriptor)
            return True

    def release(self) -> bool:
        """Gives the space back, until the next start; whether there was any."""
        with self._lock:
            self._is_released = True
            with contextlib.suppress(OSError):
                has_space = self._data.stat(RESERVE_NAME).st_size > 0
                self._data.unlink(RESERVE_NAME)
                return has_space
            return False
