"""What the daemon knows to be durable, told to followers. Blocking calls.

DATA/.durable/STREAM   there once something was committed to the stream since a clean start

A segment is visible from its rename on, and the sync of its directory may fail after that. The
daemon learns of the failure; a later sync by anybody else reports success, although the name is
lost (`crash_mark`). So while a daemon runs, a follower does not sync. It goes by the mark, one
line of constant length:

    last 00000000000000000412 first 00000000000000000401 boot 1f0c… inode 000…4711 crc32 9b3c1d2e

The daemon makes the mark before the first segment of a stream takes its name, and writes it in
place behind each sync that succeeded, which inotify tells. It needs no sync: what it says holds
for this boot. Whoever has read a segment, and then finds `.running` or the mark missing, has read
nothing that a daemon with marks had still to make durable.
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
from logengine.format.segment import is_stream_name

MARKS_NAME = ".durable"
_NO_BOOT = "-"
_LINE = re.compile(
    rb"(last (\d{20}) first (\d{20}) boot (\S+) inode (\d{20})) crc32 ([0-9a-f]{8})\n"
)
_LINE_BYTES_MAX = 4096
# A line may be read while it is written. One that stays wrong could not be written in full.
_READS_MAX = 20
_READ_AGAIN_S = 0.001


class Mark(NamedTuple):
    """All of a stream up to `last` is durable; segment `first` has been the last to become so.

    That one may be merged into another since, and none of that number may ever have been there.
    """

    last: int
    first: int


_NOTHING_KNOWN = Mark(0, 1)


class _Line(NamedTuple):
    """What a mark's file says; `boot_id` is empty where its writer did not know that.

    One that is not `is_whole` is of the file and the boot that it says, for those stay the same,
    but its numbers may be of two lines.
    """

    mark: Mark
    boot_id: str
    inode: int
    is_whole: bool


class MarkReader:
    """Reads the marks in `data`, of this boot. `boot_id` is empty where nobody knows it."""

    def __init__(self, data: AnyDirectory, boot_id: str | None = None) -> None:
        self._data = data
        self._boot_id = read_boot_id() if boot_id is None else boot_id

    def read(self, stream: str) -> Mark | None:
        """The mark of a stream; None if nobody says what of it is durable.

        To be asked behind the reading of a segment: then, if it gives None, what was read was
        durable, or comes from a writer that keeps no marks. Raises `OSError`.
        """
        # Missing where a daemon ended well, whatever it may have left.
        return self.read_left(stream) if self._is_there(CRASH_MARK_NAME) else None

    def read_left(self, stream: str) -> Mark | None:
        """The mark that is there, be its writer one that ended well or not. Raises `OSError`."""
        for _ in range(_READS_MAX):
            try:
                descriptor = _open(self._data, _path_of(stream), os.O_RDONLY)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                found = _decode(os.pread(descriptor, _LINE_BYTES_MAX, 0))
                inode = os.fstat(descriptor).st_ino
            finally:
                os.close(descriptor)
            if found is None:
                return None  # a power cut has left it, for in one boot it is whole from the first
            is_of_another_boot = self._boot_id and found.boot_id not in ("", self._boot_id)
            # A copy of a data directory has no daemon that goes on with its marks.
            if is_of_another_boot or found.inode != inode:
                return None
            if found.is_whole:
                return found.mark
            time.sleep(_READ_AGAIN_S)
        return _NOTHING_KNOWN

    def _is_there(self, name: str) -> bool:
        if isinstance(self._data, Directory):
            return self._data.has(name)
        try:
            # Unlike `os.path.lexists`, which takes every error for a no.
            os.lstat(self._data / name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


class DurableMarks:
    """The marks of the process that has the lock of `data`.

    A mark is `begin`-ned before anything takes a name in its stream. Different streams may be
    handled by different threads at once, one stream by one alone, and `catch_up` by any.
    """

    def __init__(self, data: AnyDirectory, boot_id: str) -> None:
        self._data = data
        self._boot_id = boot_id
        self._begun: dict[str, _Begun] = {}
        self._behind: set[str] = set()
        # Streams with a mark that could not be gone on with, or perhaps with one: how far they are.
        self._left_behind: dict[str, int] = {}
        self._beginning = threading.Lock()
        self._reader = MarkReader(data, boot_id)

    def has_begun(self, stream: str) -> bool:
        """Whether followers are told of `stream`."""
        return stream in self._begun

    def recovered(self, stream: str, last: int) -> None:
        """Goes on with the mark that a process killed in this boot left of a stream, if it did.

        `last` is the stream's last number. The marks of streams that are not recovered are as
        true as they were. Marks of another boot are left, for nobody goes by them. Never raises:
        one that cannot be gone on with says too little until the next `begin` or `catch_up`.
        """
        self._left_behind[stream] = last
        self._take_over(stream)

    def _take_over(self, stream: str) -> None:
        with self._beginning, contextlib.suppress(OSError):
            last = self._left_behind.get(stream)
            if last is None:
                return  # somebody else was here
            # Also one that nobody goes by yet: they do as soon as there is a `.running` again.
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
            with data.subdirectory(MARKS_NAME) as directory:
                begun = self._written_as(directory, temp, last)
                try:
                    # Under its name it is complete from the first moment.
                    directory.replace(temp, stream)
                except OSError:
                    with contextlib.suppress(OSError):
                        directory.unlink(temp)
                    raise
        begun.name = _path_of(stream)
        self._begun[stream] = begun
        self._left_behind.pop(stream, None)

    def _written_as(self, directory: Directory, temp: str, last: int) -> "_Begun":
        try:
            inode = _create(directory, temp)
            begun = _Begun(self._data, f"{MARKS_NAME}/{temp}", self._boot_id or _NO_BOOT, inode)
            begun.move(Mark(last, last + 1))
        except OSError:
            with contextlib.suppress(OSError):
                directory.unlink(temp)
            raise
        return begun

    def move(self, stream: str, last: int, first: int) -> None:
        """Says that all up to `last` is durable, as it is by segment `first`.

        Never raises: what cannot be said now is said by the next `move` or `catch_up`.
        """
        begun = self._begun.get(stream)
        if begun is not None:
            self._tell(stream, begun, Mark(last, first))

    @property
    def is_behind(self) -> bool:
        """Whether something is durable that followers could not be told of."""
        return bool(self._behind or self._left_behind)

    def catch_up(self) -> None:
        """Tries again to say what could not be said."""
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
        """Takes all marks away: what can be seen is durable."""
        self._begun.clear()
        self._behind.clear()
        self._left_behind.clear()
        with contextlib.suppress(OSError), opened(self._data) as data:
            with data.subdirectory(MARKS_NAME) as directory:
                for name in directory.names():
                    if is_stream_name(name) or name.startswith("."):
                        directory.unlink(name)
            data.remove(MARKS_NAME)


class _Begun:
    """The mark of one stream, under `name` below the data directory, and what it is to say."""

    def __init__(self, data: AnyDirectory, name: str, boot_id: str, inode: int) -> None:
        self.name = name
        self._data = data
        self._same = b" boot %s inode %020d" % (boot_id.encode(), inode)
        self._mark = _NOTHING_KNOWN
        self._lock = threading.Lock()

    def move(self, mark: Mark | None) -> None:
        """Writes `mark`, or once more the last one that was given.

        Raises `OSError`, also if not all of it could be written.
        """
        with self._lock:
            self._mark = mark or self._mark
            self._write()

    def _write(self) -> None:
        text = b"last %020d first %020d%s" % (*self._mark, self._same)
        line = b"%s crc32 %08x\n" % (text, zlib.crc32(text))
        # Open for this moment alone: a file that stays open for writing keeps its file system
        # from being remounted read-only.
        descriptor = _open(self._data, self.name, os.O_WRONLY)
        try:
            if os.pwrite(descriptor, line, 0) != len(line):
                raise OSError(errno.EIO, "only a part was written", self.name)
        finally:
            os.close(descriptor)


def _path_of(stream: str) -> str:
    """Where the mark of a stream is below the data directory."""
    return f"{MARKS_NAME}/{stream}"


def _open(data: AnyDirectory, name: str, flags: int) -> int:
    if isinstance(data, Directory):
        return data.open_file(name, flags)
    return os.open(data / name, flags | os.O_CLOEXEC)


def _create(directory: Directory, name: str) -> int:
    """Makes an empty file, in the place of one that may be there; gives its inode."""
    descriptor = directory.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
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
