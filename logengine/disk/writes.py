"""Writes whole buffers to an open file: through the page cache, or past it.

Writes past the cache need no pages: the kernel neither allocates one for every 4 KiB nor copies
into it, and a log is seldom read right after it is written. On a virtual machine, whose host may
have to allocate the pages too, pages took 40 percent of the daemon's time under load: 24 ms of CPU
for 8 MiB with their fsync, against 0.5 ms. Small files stay in the cache, where writing them is
faster and a follower finds them.

Source: open(2), "O_DIRECT".
"""

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator, Sequence

_BUFFERS_PER_WRITE = 1024  # IOV_MAX of Linux
# The largest block size of any disk, and of any common file system.
_ALIGNMENT = 4096
_STAGING_BYTES = 1024 * 1024
_PACED_BYTES = 128 * 1024

# Page-aligned memory, which direct writes require. There are as many areas as there were
# concurrent direct writes.
_staging_areas: list[memoryview] = []


def write_all(descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
    """Writes all of `buffers` with as few system calls as possible; returns the bytes written.

    Raises `OSError`.
    """
    left = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
    total = 0
    while left:
        written = os.writev(descriptor, left[:_BUFFERS_PER_WRITE])
        total += written
        done = 0
        # A short write is not an error: continue after it.
        while done < len(left) and written >= len(left[done]):
            written -= len(left[done])
            done += 1
        del left[:done]
        if written:
            left[0] = left[0][written:]
    return total


def write_all_directly(
    descriptor: int,
    buffers: Sequence[bytes | memoryview],
    pace: Callable[[int], None] | None = None,
) -> int:
    """Writes all of `buffers` to an empty file, past the page cache except for the file's end.

    With `pace`, writes smaller pieces and calls `pace` after each with its size in bytes; `pace`
    may sleep to leave the disk to others.

    If the file system does not support direct writes, or the disk needs another alignment, all
    or the rest goes through the cache. Durable after an fsync, as usual.
    """
    try:
        _set_direct(descriptor, on=True)
    except OSError:
        return write_all(descriptor, buffers)
    is_direct = True
    total = 0
    with _staging_area() as whole_area:
        area = whole_area if pace is None else whole_area[:_PACED_BYTES]
        for block in _staged(buffers, area):
            written = 0
            if is_direct:
                whole = block[: len(block) // _ALIGNMENT * _ALIGNMENT]
                written = _write_directly(descriptor, whole)
                is_direct = written == len(area)
                if not is_direct:
                    _set_direct(descriptor, on=False)
            total += written + write_all(descriptor, [block[written:]])
            if pace is not None:
                pace(len(block))
    if is_direct:
        _set_direct(descriptor, on=False)
    return total


@contextlib.contextmanager
def _staging_area() -> Iterator[memoryview]:
    """An area for exclusive use until the block ends."""
    try:
        area = _staging_areas.pop()
    except IndexError:
        area = memoryview(mmap.mmap(-1, _STAGING_BYTES))
    try:
        yield area[:_STAGING_BYTES]
    finally:
        _staging_areas.append(area)


def _staged(buffers: Sequence[bytes | memoryview], area: memoryview) -> Iterator[memoryview]:
    """Copies `buffers` into `area` and yields it whenever it is full; the last part is shorter."""
    filled = 0
    for buffer in buffers:
        left = memoryview(buffer).cast("B")
        while left:
            part = left[: len(area) - filled]
            area[filled : filled + len(part)] = part
            filled += len(part)
            left = left[len(part) :]
            if filled == len(area):
                yield area
                filled = 0
    if filled:
        yield area[:filled]


def _write_directly(descriptor: int, block: memoryview) -> int:
    """Returns the bytes written; 0 if the disk does not accept this alignment."""
    try:
        return os.write(descriptor, block)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0


def _set_direct(descriptor: int, *, on: bool) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags)
