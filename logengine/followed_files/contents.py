"""Opens followed files, and reads them.

A file that logs are read from belongs to anybody. So a link is not followed unless that is
configured. Only a regular file is read, never the daemon's own data or log. A file with a second
name is read only if its directory is not open to others: the second name may have been given by
somebody who may not read the file.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import IO

from logengine.disk.regular_file import kind_of
from logengine.errors import UnexpectedFile
from logengine.followed_files.birth import made_ns
from logengine.followed_files.generations import Found
from logengine.followed_files.identity import HEAD_BYTES_MAX, Inode
from logengine.resume.log_file import opened, skip_to
from logengine.resume.rotation import COMPRESSIONS

# ioctl_iflags(2) does not have it: _IOR('v', 1, long), which the kernel fills with an int.
_FS_IOC_GETVERSION = 0x80087601 if struct.calcsize("l") == 8 else 0x80047601  # noqa: PLR2004
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_STANDARD_ERROR = 2
_NULS_READ_BYTES = 1024 * 1024
_NULS_BYTES_MAX = 256 * 1024 * 1024


class Content:
    """An open file, plain or compressed. Use it in one thread at a time."""

    def __init__(self, path: str, *, follow_links: bool = False) -> None:
        """Raises `UnexpectedFile` and `OSError`."""
        self.path = path
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes] | None = None
        self._held = b""  # of a compressed file, from `_offset` on
        self._offset = 0
        links = 0 if follow_links else os.O_NOFOLLOW
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | links
        with contextlib.ExitStack() as stack:
            try:
                self._descriptor = os.open(path, flags)
            except OSError as error:
                if error.errno == errno.ELOOP and not follow_links:
                    raise UnexpectedFile(
                        errno.ELOOP, "it is a symbolic link; follow_links is false", path
                    ) from None
                raise
            stack.callback(os.close, self._descriptor)
            _check(os.fstat(self._descriptor), path)
            if os.path.splitext(path)[1] in COMPRESSIONS:
                self._reopen()
            head = self.read(0, HEAD_BYTES_MAX)
            status = self.status()
            size = None if self.is_compressed else max(status.st_size, len(head))
            inode = Inode(status.st_ino, _generation_of(self._descriptor))
            self.found = Found(
                os.path.basename(path),
                inode,
                head,
                size,
                status.st_mtime_ns,
                made_ns(self._descriptor),
            )
            self._stack.push(stack.pop_all())

    @property
    def is_compressed(self) -> bool:
        """Whether it is decompressed when it is read."""
        return self._file is not None

    def rename(self, found: "Content") -> None:
        """Takes the name that the file was found under."""
        self.path = found.path
        self.found = self.found._replace(name=found.found.name)

    def status(self) -> os.stat_result:
        """Returns what the system says about the file."""
        return os.fstat(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        """Returns up to `size` bytes from `position` on; fewer at the end. Raises `OSError`.

        Compressed files are quickly read only forwards.
        """
        if self._file is None:
            return os.pread(self._descriptor, size, position)
        if position < self._offset:
            self._reopen()
        try:
            if position > self._offset + len(self._held):
                skip_to(self._file, position - self._offset - len(self._held))
                self._held = b""
            else:
                self._held = self._held[position - self._offset :]
            self._offset = position
            while len(self._held) < size and (data := self._file.read(size - len(self._held))):
                self._held += data
        except EOFError as error:
            raise OSError(errno.EIO, f"it is cut off: {error}", self.path) from None
        return self._held[:size]

    def end_of_nuls(self, position: int) -> int:
        """Returns a place from `position` on up to which there are only NULs, the last one known.

        Returns `position` if nothing else follows: a program may have made room for its lines.
        """
        if self.is_compressed:
            return position
        place = position
        with contextlib.suppress(OSError):
            place = os.lseek(self._descriptor, position, os.SEEK_DATA)
        start = place  # a hole may have any size
        while place - start < _NULS_BYTES_MAX:
            data = self.read(place, _NULS_READ_BYTES)
            if data.strip(b"\0"):
                return place + len(data) - len(data.lstrip(b"\0"))
            if not data:
                break
            place += len(data)
        return position

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()

    def _reopen(self) -> None:
        decompressed = self._stack.enter_context(opened(f"/proc/self/fd/{self._descriptor}"))
        self._file, self._held, self._offset = decompressed[0], b"", 0


def _check(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnexpectedFile(
            errno.EINVAL, f"it is {kind_of(found.st_mode)}, expected a regular file", path
        )
    own = os.fstat(_STANDARD_ERROR)
    if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino):
        raise UnexpectedFile(errno.EINVAL, "it is the daemon's own log", path)
    if found.st_nlink > 1:
        directory = os.stat(os.path.dirname(path))
        is_open = directory.st_uid not in (0, os.geteuid()) or directory.st_mode & _OTHERS_MAY_WRITE
        if is_open and found.st_uid != directory.st_uid:
            raise UnexpectedFile(
                errno.EPERM,
                "it has another name, others may write to its directory, and it is not of the "
                "directory's owner: it may be a file that its sender may not read",
                path,
            )


def _generation_of(descriptor: int) -> int:
    """Returns which use of its inode a file is; 0 if its file system does not say."""
    answer = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _FS_IOC_GETVERSION, answer)
    except OSError:
        return 0
    return int(struct.unpack_from("I", answer)[0])
