"""A file replaced with one flush of the disk instead of two, where the file system allows it.

    prepare          writes the temp file, and waits until the disk has its data, perhaps in its
                     cache: the file's size and extents are then in the journal, or about to be
    publish          gives the temp file the target's name: in the journal after these
    sync_directory   fsyncs the file: the journal flushes the disk's cache, and then commits

After `publish`, a reader and the next process of this boot see the whole file, from memory. After
a power cut the name is there with the whole file, or not at all. A failed fsync leaves what a
failed sync of the directory leaves: a name that is visible and perhaps not durable. `commit_way`
says on which file systems this holds. Blocking calls.

Sources: sync_file_range(2), which says that it makes nothing durable by itself;
fs/jbd2/commit.c (`journal_submit_commit_record`), fs/xfs/xfs_log.c (`xlog_write_iclog`).
"""

import contextlib
import ctypes
import errno
import os

from logengine.disk.atomic import AtomicWriter, FailingStep
from logengine.disk.directory import Directory, errors_name
from logengine.errors import AtomicWriteError

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
# The kernel, the C library, the file's type or a filter of system calls does not have the call.
_UNSUPPORTED = {errno.ESPIPE, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}

_libc = ctypes.CDLL(None, use_errno=True)


def write_back(descriptor: int) -> None:
    """Returns when the disk has all data of a file, perhaps in its cache. Raises `OSError`.

    A write error is reported once; an fsync after it may succeed.
    """
    if (call := getattr(_libc, "sync_file_range", None)) is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    start, whole = ctypes.c_int64(0), ctypes.c_int64(0)
    if call(descriptor, start, whole, ctypes.c_uint(_WAIT_BEFORE | _WRITE | _WAIT_AFTER)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class OneFlush:
    """That one flush is enough on the file system of `directory`, until it is ruled out.

    Any thread may rule it out.
    """

    def __init__(self, directory: Directory) -> None:
        self.device = os.fstat(directory.descriptor).st_dev
        self.ruled_out: str | None = None

    def rule_out(self, error: OSError) -> None:
        """Notes that the system does not have the call."""
        self.ruled_out = f"sync_file_range is not available: {os.strerror(error.errno or 0)}"


class OneFlushWriter(AtomicWriter):
    """An unbuffered binary writer that takes one flush if `one_flush` is set, otherwise two.

    Set it before `prepare`. With one flush, the file stays open until `sync_directory`.
    """

    one_flush: OneFlush | None = None
    _is_unflushed = False

    def prepare(self) -> None:
        """As `AtomicWriter.prepare`; with one flush, the data may still be in the disk's cache."""
        if self.one_flush is None or self._prepared or not self._write_back(self.one_flush):
            super().prepare()
            return
        self._is_unflushed = self._prepared = True

    def _write_back(self, one_flush: OneFlush) -> bool:
        if one_flush.ruled_out is not None:
            return False
        with FailingStep(self, "fsync"):
            descriptor = self.file.fileno()
            # Another file system may be mounted in place of the stream's directory.
            if os.fstat(descriptor).st_dev != one_flush.device:
                return False
            try:
                write_back(descriptor)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                one_flush.rule_out(error)
                return False
        return True

    def sync_directory(self) -> None:
        """Makes the file durable under its new name, as `AtomicWriter.sync_directory`.

        Not by fdatasync: all that is new of the file is the time of its last change.
        """
        if not self._is_unflushed:
            super().sync_directory()
            return
        try:
            with errors_name(self.path, "fsync"):
                os.fsync(self.file.fileno())
                # An xfs that has shut down: see `Directory.sync`.
                os.fstat(self.file.fileno())
        except AtomicWriteError as error:
            error.published = self.published
            raise
        finally:
            with contextlib.suppress(OSError):
                self.file.close()
            self._let_go()
