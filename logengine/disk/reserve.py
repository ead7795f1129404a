"""Space reserved on the disk, so that a stop on a full disk can commit what was received.

DATA/.reserve   a file without content that only occupies space

Unlinking and its directory sync do not need the reserve: on a full ext4 and xfs both succeed and
free the file's space. But a commit needs space for what it writes. Records that were not
acknowledged, and that their senders will not send again, wait in memory for that commit.
"""

import contextlib
import os
import threading

from logengine.disk.directory import AnyDirectory, directory_at

RESERVE_NAME = ".reserve"


class Reserve:
    """A file of `size_bytes` in the data directory; 0 means none. Blocking calls; thread-safe."""

    def __init__(self, data: AnyDirectory, size_bytes: int) -> None:
        self._data = directory_at(data)
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._is_released = False

    def hold(self) -> bool:
        """Makes the file, or changes its length to `size_bytes`; False if there is no room now.

        There is room if `size_bytes` more remain free for records. Raises `OSError` for any other
        failure.
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
        """Frees the space until the next start; returns whether there was any."""
        with self._lock:
            self._is_released = True
            with contextlib.suppress(OSError):
                has_space = self._data.stat(RESERVE_NAME).st_size > 0
                self._data.unlink(RESERVE_NAME)
                return has_space
            return False
