"""Tells the next process of the same boot whether the last one stopped cleanly. Blocking calls.

DATA/.running   exists while a process writes in DATA, and after one that did not stop cleanly

A failed directory sync may have lost a name permanently, and no later sync reports it. The process
whose sync failed knows that and rewrites what was lost. A process that starts after that one was
killed does not know, unless the machine was rebooted in between: then everything visible is
durable. So the file itself needs no sync. Its lines are

    boot 1f0c6f0e-…     the kernel's identifier of this boot
    stream app          stream "app" has a durable segment
    unsynced app        nothing more may be removed from stream "app" in this boot
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
# More than two lines for each of as many streams as the configuration allows.
_BYTES_MAX = 256 * 1024 * 1024
_BOOT = "boot"
_UNSYNCED = "unsynced"
_STREAM = "stream"


def read_boot_id() -> str:
    """The kernel's identifier of this boot; empty if unavailable."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


class CrashMark:
    """The mark of a process that writes in `data` and has its lock.

    `boot_id` is empty if unknown; every mark found then counts as one of this boot. After `begin`,
    `died_before` is true if a mark of this boot was found. Failed syncs by `names` are noted in
    the mark; `on_unsynced` is called with each such stream, including those noted before.
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
        # Streams that this process, or an earlier one in this boot, had on disk.
        self.streams: set[str] = set()
        self.is_marked = False
        self.died_before = False
        self.names = DurableNames(self._note)

    def begin(self) -> None:
        """Looks for the mark of an earlier process, and leaves this process's mark if possible.

        Raises `OSError` if a mark exists but cannot be read.
        """
        self.look()
        with contextlib.suppress(OSError):
            self.mark()

    def look(self) -> None:
        """Looks for the mark of an earlier process; changes nothing. Raises as `begin`."""
        if self._has_looked:
            return
        found = self._read()
        self._has_looked = True
        # Text after the last newline was cut short.
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
        """Leaves the mark; must precede every rename. Raises `OSError`."""
        if self.is_marked:
            return
        if self._is_of_another_boot:
            self._data.unlink(CRASH_MARK_NAME)
            self._is_of_another_boot = False
        # Its existence suffices; on a full disk it is an empty file.
        os.close(self._open())
        self.is_marked = True
        self._write()

    def note_streams(self, streams: Iterable[str]) -> None:
        """Notes streams that contain something durable. Without them, the mark only says less."""
        with self._lock:
            new = sorted(set(streams) - self.streams)
            if new:
                self.streams.update(new)
                self._not_written += [f"{_STREAM} {stream}" for stream in new]
                self._write()

    def end(self) -> None:
        """Removes the mark: every rename and removal of this process is durable."""
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
            content = self._data.read_file(CRASH_MARK_NAME, _BYTES_MAX)
        except FileNotFoundError:
            return None
        # After a power cut it may contain anything.
        return content.decode(errors="replace")

    def _open(self) -> int:
        return self._data.open_file(CRASH_MARK_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _write(self) -> None:
        """Writes the pending lines. Lines that cannot be written now are written with the next."""
        with contextlib.suppress(OSError):
            descriptor = self._open()
            try:
                # The previous line may have been cut short.
                text = "".join(f"\n{line}\n" for line in self._not_written).encode()
                write_all(descriptor, [text])
                self._not_written.clear()
            finally:
                os.close(descriptor)
