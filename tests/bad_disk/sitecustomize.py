"""A disk with bad sectors: a process that imports this cannot read files with the sticky bit.

Python imports it before all else where its directory is in PYTHONPATH. No command of logengine sets
that bit, so it follows a file to any name.
"""

import errno
import os
import stat
from collections.abc import Callable

Pread = Callable[[int, int, int], bytes]


def failing(read: Pread) -> Pread:
    """The `os.pread` of such a process."""

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_mode & stat.S_ISVTX:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size, offset)

    return pread


if __name__ == "sitecustomize":
    os.pread = failing(os.pread)
