"""Ways to give a file its content under its name for good: the engine's, a shorter one, bad ones.

`one_flush` needs one flush of the disk where the engine's way needs two. Its data is complete on
the disk, perhaps only in the disk's cache, before the rename is in any transaction; the journal
flushes that cache before it writes the transaction's commit record.

Sources: sync_file_range(2), which says that it makes nothing durable by itself;
fs/jbd2/commit.c (`journal_submit_commit_record`), fs/xfs/xfs_log.c (`xlog_write_iclog`).
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from logengine import AtomicWriter
from logengine.disk.temp_file import TEMP_SUFFIX

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

Way = Callable[[Path, bytes], None]


def todays(path: Path, data: bytes) -> None:
    """The engine's: fsync, rename, sync of the directory."""
    with AtomicWriter(path, "wb") as writer:
        writer.write(data)


def two_flushes(path: Path, data: bytes) -> None:
    """The calls of `todays` and no more: what `one_flush` is compared with."""
    without_the_directory(path, data)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def one_flush(path: Path, data: bytes) -> None:
    """The data is written and waited for, without a flush; rename; fsync of the file."""
    _replace(path, data)


def without_the_wait(path: Path, data: bytes) -> None:
    """Bad: the rename may be in a transaction that is durable before the data is."""
    _replace(path, data, _WAIT_BEFORE | _WRITE)


def with_fdatasync(path: Path, data: bytes) -> None:
    """Bad: of the rename, only a timestamp of the file is new, which fdatasync may leave out."""
    _replace(path, data, sync=os.fdatasync)


def without_the_last_fsync(path: Path, data: bytes) -> None:
    """Bad: the rename is in a transaction that nobody has waited for."""
    _replace(path, data, sync=lambda _: None)


def without_the_directory(path: Path, data: bytes) -> None:
    """Bad: fsync and rename, but no sync after it."""
    temp = _temp_of(path)
    with open(temp, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    os.replace(temp, path)


def without_any_sync(path: Path, data: bytes) -> None:
    """Bad: nothing is waited for."""
    temp = _temp_of(path)
    temp.write_bytes(data)
    os.replace(temp, path)


def sync_file_range(descriptor: int, flags: int) -> None:
    """sync_file_range(2) of a whole file. Raises `OSError`."""
    if _libc.sync_file_range(descriptor, 0, 0, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _replace(
    path: Path,
    data: bytes,
    flags: int = _WAIT_BEFORE | _WRITE | _WAIT_AFTER,
    sync: Callable[[int], None] = os.fsync,
) -> None:
    temp = _temp_of(path)
    with open(temp, "wb", buffering=0) as file:
        file.write(data)
        sync_file_range(file.fileno(), flags)
        os.replace(temp, path)
        sync(file.fileno())
        # A file system that shut down meanwhile may say ok to the sync; see `Directory.sync`.
        os.fstat(file.fileno())


def _temp_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{TEMP_SUFFIX}")
