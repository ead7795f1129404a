"""Whether the process before ended well, told to the next one of the same boot. Blocking calls.

DATA/.running   there while a process writes in DATA, and after one that did not end well

A sync of a directory that failed may have lost a name for good, and no later sync tells. The
process that it failed for knows, and writes again what it lost; one that starts after it was
killed does not, unless the machine was booted in between: then what can be seen is durable.
So the file needs no sync. Its lines are

    boot 1f0c6f0e-…     the kernel's name of this boot
    stream app          stream "app" has a segment that is durable
    unsynced app        of stream "app" nothing more may be removed in this boot
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from logengine.disk.directory import Directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.writes import write_all

CRASH_MARK_NAME = ".running"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT = "boot"
_UNSYNCED = "unsynced"
_STREAM = "stream"


def read_boot_id() -> str:
    """What the kernel calls this boot; empty where it does not say."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


class CrashMark:
    """The mark of a process that writes in `data`, whose lock it has.

    `boot_id` is empty where nobody knows it: then a mark that is found counts as one of this
    boot. `died_before` tells, after `begin`, whether one was found. A failed sync of `names` is
    noted in it; `on_unsynced` is called with each such stream, also with those noted before.
    """

    def __init__(
        self, data: Directory, boot_id: str, on_unsynced: Callable[[str], None] = lambda _: None
    ) -> None:
        self._on_unsynced = on_unsynced
        self._data = data
        self._boot_id = boot_id
        self._lock = threading.Lock()
        self._is_of_another_boot = False
        self._not_written: list[str] = []
        self._has_looked = False
        # Streams that a process before, in this boot, or this one had on the disk.
        self.streams: set[str] = set()
        self.is_marked = False
        self.died_before = False
        self.names = DurableNames(self._note)

    def begin(self) -> None:
        """Looks for the mark of a process before, and leaves one; where it can be, that is.

        Raises `OSError` if one is there that cannot be read.
        """
        self.look()
        with contextlib.suppress(OSError):
            self.mark()

    def look(self) -> None:
        """Looks for the mark of a process before, and changes nothing. Raises as `begin`."""
        if self._has_looked:
            return
        found = self._read()
        self._has_looked = True
        # What is behind the last end of a line was cut short.
        whole = (found or "").split("\n")[:-1]
        lines = [line.split(" ", 1) for line in whole if " " in line]
        boots = [rest for key, rest in lines if key == _BOOT]
        self._is_of_another_boot = bool(self._boot_id and boots) and self._boot_id not in boots
        self.died_before = found is not None and not self._is_of_another_boot
        if self.died_before:
            self.streams.update(rest for key, rest in lines if key == _STREAM)
            self.names.take_over(rest for key, rest in lines if key == _UNSYNCED)
            for stream in sorted(self.names.unsynced):
                self._on_unsynced(stream)
        if self._boot_id and self._boot_id not in boots:
            self._not_written.append(f"{_BOOT} {self._boot_id}")

    def mark(self) -> None:
        """Leaves the mark, before anything takes a name. Raises `OSError`."""
        if self.is_marked:
            return
        if self._is_of_another_boot:
            self._data.unlink(CRASH_MARK_NAME)
            self._is_of_another_boot = False
        # That it is there says enough; on a full disk it is an empty file.
        os.close(self._open())
        self.is_marked = True
        self._write()

    def note_streams(self, streams: Iterable[str]) -> None:
        """Notes streams of which something is durable; a mark without them says less."""
        with self._lock:
            new = sorted(set(streams) - self.streams)
            if new:
                self.streams.update(new)
                self._not_written += [f"{_STREAM} {stream}" for stream in new]
                self._write()

    def end(self) -> None:
        """Takes the mark away: every name that this process gave or took away is durable."""
        with contextlib.suppress(OSError):
            self._data.unlink(CRASH_MARK_NAME)
            self.is_marked = False

    def _note(self, stream: str) -> None:
        self._on_unsynced(stream)
        with self._lock:
            self._not_written.append(f"{_UNSYNCED} {stream}")
            self._write()

    def _read(self) -> str | None:
        try:
            descriptor = self._data.open_file(CRASH_MARK_NAME, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(descriptor).st_size
            # After a power cut there may be anything in it.
            return os.pread(descriptor, size, 0).decode(errors="replace")
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return self._data.open_file(CRASH_MARK_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _write(self) -> None:
        """Writes what is to be in it. What cannot be written now goes with the next."""
        with contextlib.suppress(OSError):
            descriptor = self._open()
            try:
                # A line before them may have been cut short.
                text = "".join(f"\n{line}\n" for line in self._not_written).encode()
                write_all(descriptor, [text])
                self._not_written.clear()
            finally:
                os.close(descriptor)
