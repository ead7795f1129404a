"""Whether this is still the process that something was made in, for twenty nanoseconds.

Hooks of Python's are not run by every fork: uWSGI forks in C, billiard in its own way.
"""

import mmap
import os

_MADV_WIPEONFORK = 18  # madvise(2), Linux 4.14; `mmap` has no name for it


class ProcessMark:
    """`mark[0]` is true in the process that made it and false in all that are forked from it.

    A page of memory that the kernel gives zeroed to a child; where it cannot, the number of the
    process is compared, which is a system call.
    """

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, _: int) -> int:
        return os.getpid() == self._pid


def process_mark() -> mmap.mmap | ProcessMark:
    """A mark of this process."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except (OSError, ValueError):
        return ProcessMark()
    page[0] = 1
    return page
