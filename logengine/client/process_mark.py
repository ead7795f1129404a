"""Detects in twenty nanoseconds whether an object was created in this process.

Not every fork runs Python's fork hooks: uWSGI forks in C, billiard in its own way.
"""

import mmap
import os

_MADV_WIPEONFORK = 18  # madvise(2), Linux 4.14; `mmap` has no name for it


class ProcessMark:
    """A mark without kernel support, which compares process ids with a system call.

    `mark[0]` is true in the process that made the mark and false in all its forked children.
    """

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, _: int) -> int:
        return os.getpid() == self._pid


def process_mark() -> mmap.mmap | ProcessMark:
    """Returns a mark of this process: `mark[0]` is true here and false in forked children.

    It is a page of memory that the kernel zeroes in a child; a `ProcessMark` where it cannot.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except (OSError, ValueError):
        return ProcessMark()
    page[0] = 1
    return page
