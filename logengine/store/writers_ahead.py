"""Writers that are opened before there is something to write: less to do while a sender waits.

A sender that waits for each ack comes back at once. For its next record the stream's directory is
already open, and an empty temp file is in it. Between two syncs the caches are cold: opening both
took a quarter of what the daemon adds to the disk's own time. On ext4, making a file takes up to
0.6 ms after many removals.

A killed process leaves the temp file. Recovery removes it, like any other.
"""

import contextlib
import os
import resource
from collections import OrderedDict

from logengine.disk.directory import Directory
from logengine.disk.early_writer import EarlyWriter
from logengine.store.stream import PERMISSIONS

# Each has two files open. They are for streams with one sender that waits for its acks.
WRITERS_AHEAD_MAX = 4
# If fewer open files are allowed, they are left to commits and senders.
_OPEN_FILES_MIN = 256
# A temp file that is open for writing prevents a read-only remount of its file system.
KEPT_S = 1.0


def has_files_to_spare() -> bool:
    """Whether enough open files are allowed to keep some open that need not be."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit == resource.RLIM_INFINITY or limit >= _OPEN_FILES_MIN


class WriterAhead:
    """What is open for a stream: nothing until its second commit within `KEPT_S`."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.used_s = 0.0
        self._directory: Directory | None = None
        self._place: tuple[int, ...] = ()
        self._writer: EarlyWriter | None = None
        self._temp: tuple[int, ...] = ()

    def open(self, data: Directory, file_name: str) -> None:
        """Opens a writer for a file of this name, below `data`. Raises `OSError`."""
        if self._writer is not None:
            return
        directory = self._directory
        if directory is None:
            directory = self._directory = data.subdirectory(self.stream)
            self._place = _place(os.fstat(directory.descriptor))
        writer = EarlyWriter(directory, file_name, permissions=PERMISSIONS)
        writer.open()
        self._writer = writer
        self._temp = _empty_file(os.fstat(writer.file.fileno()))

    def take(self, data: Directory, file_name: str) -> EarlyWriter | None:
        """Hands over the writer, if there is one and the directory is still the stream's.

        If somebody touched the temp file meanwhile, it is removed instead.
        """
        writer = self._writer
        if writer is None:
            return None
        try:
            if _place(data.stat(self.stream, follow_links=False)) != self._place:
                return None
        except OSError:
            return None
        self._writer = None
        if not self._is_untouched(writer):
            writer.abort()
            return None
        writer.aim_at(file_name)
        return writer

    def _is_untouched(self, writer: EarlyWriter) -> bool:
        # The rename goes by name. Whatever has the name would become the segment, and be acked.
        try:
            there = writer.directory.stat(writer.temp_name, follow_links=False)
        except OSError:
            return False
        return _empty_file(there) == self._temp

    def close(self) -> None:
        """Removes the temp file. Never raises."""
        if self._writer is not None:
            self._writer.abort()
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self._directory.close()


class WritersAhead:
    """The writers ahead of the streams in `data`.

    What `left_over` and `let_go` return has to be closed, which may wait for the disk.
    """

    def __init__(self, data: Directory) -> None:
        self._data = data
        self._streams: OrderedDict[str, WriterAhead] = OrderedDict()  # by last use
        self._streams_max = WRITERS_AHEAD_MAX if has_files_to_spare() else 0

    def take(self, stream: str, file_name: str) -> EarlyWriter | None:
        """An open writer for a file of this name; None if there is none.

        The caller publishes it or aborts it.
        """
        ahead = self._streams.get(stream)
        return None if ahead is None else ahead.take(self._data, file_name)

    def committed(self, stream: str, file_name: str, now_s: float) -> None:
        """Opens a writer for the next commit if the last but one was a moment ago.

        `file_name` is that of the last commit, and probably that of the next. Does nothing if
        there are too many, or on an error.
        """
        ahead = self._streams.get(stream)
        if ahead is not None:
            ahead.used_s = now_s
            with contextlib.suppress(OSError):
                ahead.open(self._data, file_name)
        elif len(self._streams) < self._streams_max:
            self._streams[stream] = ahead = WriterAhead(stream)
            ahead.used_s = now_s

    def left_over(self, now_s: float) -> list[WriterAhead]:
        """Lets go of streams without a commit for `KEPT_S`."""
        idle = [each.stream for each in self._streams.values() if now_s - each.used_s >= KEPT_S]
        return [self._streams.pop(stream) for stream in idle]

    def let_go(self, stream: str) -> WriterAhead | None:
        """Lets go of a stream."""
        return self._streams.pop(stream, None)

    @property
    def is_empty(self) -> bool:
        """Whether no stream has one."""
        return not self._streams

    def close(self) -> None:
        """Removes all temp files. Never raises."""
        while self._streams:
            self._streams.popitem()[1].close()


def _empty_file(found: os.stat_result) -> tuple[int, ...]:
    """What stays the same while nobody else writes to a file, links it or takes its name."""
    return found.st_dev, found.st_ino, found.st_nlink, found.st_size, found.st_uid


def _place(found: os.stat_result) -> tuple[int, ...]:
    """What stays the same while a directory keeps its name and its owner."""
    return found.st_dev, found.st_ino, found.st_uid
