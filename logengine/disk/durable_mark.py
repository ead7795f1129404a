"""Marks that tell followers how much of each stream is durable. Blocking calls.

DATA/.durable/STREAM   exists once something was committed to the stream since a clean start

A segment is visible from its rename on, but the sync of its directory may still fail. The daemon
learns of the failure; a later sync by another process succeeds although the name is lost
(`crash_mark`). So while a daemon runs, a follower does not sync. It relies on the mark, one line
of constant length:

    last 00000000000000000412 first 00000000000000000401 boot 1f0c… inode 000…4711 crc32 9b3c1d2e

The daemon makes the mark before the first segment of a stream takes its name, and overwrites it in
place after each successful sync, which inotify reports. The mark needs no sync: it is valid for
this boot only. If a reader has read a segment and then finds `.running` or the mark missing, no
daemon with marks still had to make that segment durable.
"""

import contextlib
import errno
import os
import re
import threading
import time
import zlib
from typing import NamedTuple

from logengine.disk.crash_mark import CRASH_MARK_NAME, read_boot_id
from logengine.disk.directory import AnyDirectory, Directory, opened
from logengine.disk.regular_file import open_at_path
from logengine.format.segment import is_stream_name

MARKS_NAME = ".durable"
_NO_BOOT = "-"
_LINE = re.compile(
    rb"(last (\d{20}) first (\d{20}) boot (\S+) inode (\d{20})) crc32 ([0-9a-f]{8})\n"
)
_LINE_BYTES_MAX = 4096
# A line may be read while it is written. A line that stays wrong was not written in full.
_READS_MAX = 20
_READ_AGAIN_S = 0.001


class Mark(NamedTuple):
    """The stream is durable up to number `last`; segment `first` was the last to become durable.

    That segment may have been merged into another one since, or may never have existed.
    """

    last: int
    first: int


_NOTHING_KNOWN = Mark(0, 1)


class _Line(NamedTuple):
    """The content of a mark's file; `boot_id` is empty if its writer did not know it.

    If `is_whole` is false, inode and boot are still right, because they never change, but the
    numbers may come from two different lines.
    """

    mark: Mark
    boot_id: str
    inode: int
    is_whole: bool


class MarkReader:
    """Reads the marks of this boot in `data`. `boot_id` is empty if unknown."""

    def __init__(self, data: AnyDirectory, boot_id: str | None = None) -> None:
        self._data = data
        self._boot_id = read_boot_id() if boot_id is None else boot_id

    def read(self, stream: str) -> Mark | None:
        """The mark of a stream; None if there is no valid mark.

        Call this after reading a segment: if it then returns None, what was read was durable, or
        comes from a writer that keeps no marks. Raises `OSError`.
        """
        # Missing after a clean stop, even if that daemon left marks.
        return self.read_left(stream) if self._is_there(CRASH_MARK_NAME) else None

    def read_left(self, stream: str) -> Mark | None:
        """The mark in the file, whether or not its writer stopped cleanly. Raises `OSError`."""
        for _ in range(_READS_MAX):
            try:
                descriptor = self._open(stream)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                found = _decode(os.pread(descriptor, _LINE_BYTES_MAX, 0))
                inode = os.fstat(descriptor).st_ino
            finally:
                os.close(descriptor)
            if found is None:
                return None  # left by a power cut: within one boot it is complete from the start
            is_of_another_boot = self._boot_id and found.boot_id not in ("", self._boot_id)
            # No daemon continues the marks in a copy of a data directory.
            if is_of_another_boot or found.inode != inode:
                return None
            if found.is_whole:
                return found.mark
            time.sleep(_READ_AGAIN_S)
        return _NOTHING_KNOWN

    def _open(self, stream: str) -> int:
        if isinstance(self._data, Directory):
            with self._data.subdirectory(MARKS_NAME) as directory:
                return directory.open_file(stream, os.O_RDONLY)
        return open_at_path(os.path.join(self._data, MARKS_NAME, stream), os.O_RDONLY)

    def _is_there(self, name: str) -> bool:
        if isinstance(self._data, Directory):
            return self._data.has(name)
        try:
            # Not `os.path.lexists`, which treats every error as a no.
            os.lstat(self._data / name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


class DurableMarks:
    """The marks of the process that has the lock of `data`.

    `begin` must precede the first rename in a stream. Different threads may handle different
    streams concurrently, but only one thread each stream; any thread may call `catch_up`.
    """

    def __init__(self, data: AnyDirectory, boot_id: str) -> None:
        self._data = data
        self._boot_id = boot_id
        self._begun: dict[str, _Begun] = {}
        self._behind: set[str] = set()
        # Last numbers of streams that have, or may have, an old mark that is not taken over yet.
        self._left_behind: dict[str, int] = {}
        self._directory: Directory | None = None
        self._beginning = threading.Lock()
        self._reader = MarkReader(data, boot_id)

    def has_begun(self, stream: str) -> bool:
        """Whether the mark of `stream` was begun."""
        return stream in self._begun

    def known_durable(self, stream: str) -> int | None:
        """The last number that an earlier process of this boot marked as durable.

        None if no process of this boot marked the stream. Raises `OSError`.
        """
        mark = self._reader.read_left(stream)
        return None if mark is None else mark.last

    def recovered(self, stream: str, last: int) -> None:
        """Takes over the mark of a stream that a process killed in this boot left, if any.

        `last` is the stream's last number. Marks of streams that are not recovered stay valid.
        Marks of another boot are left alone, because no reader uses them. Never raises: a mark
        that cannot be taken over lags behind until the next `begin` or `catch_up`.
        """
        self._left_behind[stream] = last
        self._take_over(stream)

    def _take_over(self, stream: str) -> None:
        with self._beginning, contextlib.suppress(OSError):
            last = self._left_behind.get(stream)
            if last is None:
                return  # another thread was faster
            # Even if no reader uses the mark yet: they will as soon as `.running` exists again.
            if not self.has_begun(stream) and self._reader.read_left(stream) is not None:
                self._begin(stream, last)
            self._left_behind.pop(stream, None)

    def begin(self, stream: str, last: int) -> None:
        """Leaves the mark of a stream that is durable up to `last`. Raises `OSError`."""
        with self._beginning:
            self._begin(stream, last)

    def _begin(self, stream: str, last: int) -> None:
        temp = f".{stream}.tmp"
        with opened(self._data) as data:
            with contextlib.suppress(FileExistsError):
                data.make(MARKS_NAME, 0o750)
            directory = self._one_of(data.subdirectory(MARKS_NAME))
        begun = self._written_as(directory, temp, last)
        try:
            # It must be complete from the moment it has its name.
            directory.replace(temp, stream)
        except OSError:
            with contextlib.suppress(OSError):
                directory.unlink(temp)
            raise
        begun.name = stream
        self._begun[stream] = begun
        self._left_behind.pop(stream, None)

    def _one_of(self, found: Directory) -> Directory:
        """The directory of the marks, open once for all streams as long as it is the same one."""
        now = self._directory
        if now is not None and os.path.samestat(
            os.fstat(now.descriptor), os.fstat(found.descriptor)
        ):
            found.close()
            return now
        # The other one is closed with its last mark.
        self._directory = found
        return found

    def _written_as(self, directory: Directory, temp: str, last: int) -> "_Begun":
        try:
            inode = _create(directory, temp)
            begun = _Begun(directory, temp, self._boot_id or _NO_BOOT, inode)
            begun.move(Mark(last, last + 1))
        except OSError:
            with contextlib.suppress(OSError):
                directory.unlink(temp)
            raise
        return begun

    def move(self, stream: str, last: int, first: int) -> None:
        """Marks everything up to `last` as durable, after segment `first` became durable.

        Never raises: what cannot be written now is written by the next `move` or `catch_up`.
        """
        begun = self._begun.get(stream)
        if begun is not None:
            self._tell(stream, begun, Mark(last, first))

    @property
    def is_behind(self) -> bool:
        """Whether a mark lags behind what is durable, because it could not be written."""
        return bool(self._behind or self._left_behind)

    def catch_up(self) -> None:
        """Tries again to write the marks that could not be written."""
        for stream in list(self._left_behind):
            self._take_over(stream)
        for stream in list(self._behind):
            self._tell(stream, self._begun[stream], None)

    def _tell(self, stream: str, begun: "_Begun", mark: Mark | None) -> None:
        try:
            begun.move(mark)
        except OSError:
            self._behind.add(stream)
        else:
            self._behind.discard(stream)

    def end(self) -> None:
        """Removes all marks: everything visible is durable."""
        self._begun.clear()
        self._directory = None
        self._behind.clear()
        self._left_behind.clear()
        with contextlib.suppress(OSError), opened(self._data) as data:
            with data.subdirectory(MARKS_NAME) as directory:
                for name in directory.names():
                    if is_stream_name(name) or name.startswith("."):
                        with contextlib.suppress(IsADirectoryError):
                            directory.unlink(name)
            data.remove(MARKS_NAME)


class _Begun:
    """The mark of one stream, called `name` in `directory`, and its intended content."""

    def __init__(self, directory: Directory, name: str, boot_id: str, inode: int) -> None:
        self.name = name
        self._directory = directory
        self._same = b" boot %s inode %020d" % (boot_id.encode(), inode)
        self._mark = _NOTHING_KNOWN
        self._lock = threading.Lock()

    def move(self, mark: Mark | None) -> None:
        """Writes `mark`, or the last given one again.

        Raises `OSError`, also if it could not be written in full.
        """
        with self._lock:
            self._mark = mark or self._mark
            self._write()

    def _write(self) -> None:
        text = b"last %020d first %020d%s" % (*self._mark, self._same)
        line = b"%s crc32 %08x\n" % (text, zlib.crc32(text))
        # Opened only for this write: a file that stays open for writing prevents a read-only
        # remount of its file system.
        descriptor = self._directory.open_file(self.name, os.O_WRONLY)
        try:
            if os.pwrite(descriptor, line, 0) != len(line):
                raise OSError(errno.EIO, "only a part was written", self.name)
        finally:
            os.close(descriptor)


def _create(directory: Directory, name: str) -> int:
    """Makes an empty file, in place of an existing one; returns its inode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = directory.open_file(name, flags)
    except FileExistsError:
        # Left by a killed process. Not emptied: somebody may have linked another file here.
        directory.unlink(name)
        descriptor = directory.open_file(name, flags)
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def _decode(text: bytes) -> _Line | None:
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    boot_id = match[4].decode(errors="replace")
    return _Line(
        Mark(int(match[2]), int(match[3])),
        "" if boot_id == _NO_BOOT else boot_id,
        int(match[5]),
        zlib.crc32(match[1]) == int(match[6], 16),
    )
