"""Tunes the C library's allocator for chunks and batches, which are large and short-lived."""

import contextlib
import ctypes

# malloc.h of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 256 * 1024 * 1024
_FROM_THE_HEAP_BYTES = 32 * 1024 * 1024


def keep_freed_memory() -> None:
    """Lets malloc reuse freed memory instead of returning it to the kernel.

    By default, every chunk larger than 128 KiB is mapped and faulted in page by page each time,
    which took half of the daemon's time under load. The memory kept is bounded by the most that was
    in use at a time. Does nothing with a C library other than GNU's.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _FROM_THE_HEAP_BYTES)
