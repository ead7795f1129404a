"""How the C library's allocator treats the memory that chunks and batches come and go in."""

import contextlib
import ctypes

# malloc.h of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 256 * 1024 * 1024
_FROM_THE_HEAP_BYTES = 32 * 1024 * 1024


def keep_freed_memory() -> None:
    """Lets malloc use again what was freed, instead of giving it back to the kernel.

    By default every chunk of more than 128 KiB is mapped anew and faulted in page by
    page: that took half of the daemon's time under load. What is kept is bounded by what
    was in use at once. Does nothing with another C library than GNU's.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _FROM_THE_HEAP_BYTES)
