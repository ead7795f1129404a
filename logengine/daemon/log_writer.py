"""Writes the lines of the daemon's own log, without ever blocking a part that logs.

Whoever reads the log may stand still: a full pipe to a supervisor, a terminal stopped with Ctrl-S.
So a thread writes, and lines wait in a bounded queue. `O_NONBLOCK` would do without a thread, but
belongs to the open file, which the daemon may share with a shell and other processes.
"""

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

# How long a stop waits for a reader of the log that stands still.
_CLOSE_MAX_S = 2.0
# While the queue does not get empty, lost lines are reported at most this often.
_REPORT_EVERY_S = 1.0


class Due(NamedTuple):
    """Lines to write now, and when there may be more, by the monotonic clock; None: no time."""

    lines: list[str]
    next_s: float | None


class LogWriter:
    """Writes lines to `descriptor` in a thread, in the order in which they were added.

    At most `waiting_bytes_max` bytes wait, or a single longer line. Further lines, and those that
    cannot be written, are lost. They are counted, and once lines can be written again, `lost_line`
    is called with their number and returns the line that reports it. `due` returns the lines that
    are due at a time, which is infinite at the end. The thread calls both.
    """

    def __init__(
        self,
        descriptor: int,
        waiting_bytes_max: int,
        *,
        lost_line: Callable[[int], str],
        due: Callable[[float], Due],
        encoding: str = "utf-8",
    ) -> None:
        self._descriptor = descriptor
        self._waiting_bytes_max = waiting_bytes_max
        self._lost_line = lost_line
        self._due = due
        self._encoding = encoding
        # Its lock is reentrant: a destructor that Python runs while it is held may log.
        self._changed = threading.Condition(threading.RLock())
        # Guarded by `_changed`.
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0  # those of the line that is being written among them
        self._lost = 0
        self._is_closing = False
        # Only for the thread.
        self._is_torn = False  # the last line was written in part
        self._is_failing = False
        self._reported_s = -_REPORT_EVERY_S
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queues a line, without its newline. Never blocks, and raises nothing."""
        encoded = self._encoded(line)
        with self._changed:
            room_bytes = self._waiting_bytes_max - self._waiting_bytes
            if self._waiting_bytes and len(encoded) > room_bytes:
                self._lost += 1
                return
            self._lines.append(encoded)
            self._waiting_bytes += len(encoded)
            self._changed.notify()

    debug = info = warning = error = critical = write

    @property
    def waiting_bytes(self) -> int:
        """How many bytes were neither written nor lost yet."""
        return self._waiting_bytes

    def close(self) -> None:
        """Waits until all lines are written, or for a limited time if their reader stands still."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_MAX_S)

    def _encoded(self, line: str) -> bytes:
        return line.encode(self._encoding, "backslashreplace") + b"\n"

    def _run(self) -> None:
        next_s: float | None = None
        is_last = False
        while not is_last:
            line, is_last = self._next_line(next_s)
            if line is not None:
                if self._is_failing:
                    self._report_lost()
                self._write_or_count(line)
                with self._changed:
                    self._waiting_bytes -= len(line)
            due, next_s = self._due(math.inf if is_last else time.monotonic())
            for text in due:
                self._write_or_count(self._encoded(text))
            if not self._is_failing:
                self._report_lost()

    def _next_line(self, until_s: float | None) -> tuple[bytes | None, bool]:
        """Waits for a line; also returns whether it is the last one. None: `until_s` is over."""
        with self._changed:
            while not self._lines and not self._is_closing:
                wait_s = None if until_s is None else until_s - time.monotonic()
                if wait_s is not None and wait_s <= 0:
                    break
                self._changed.wait(wait_s)
            line = self._lines.popleft() if self._lines else None
            return line, self._is_closing and not self._lines

    def _report_lost(self) -> None:
        """Reports lost lines, if there are any and that was not done just before."""
        now_s = time.monotonic()
        with self._changed:
            is_soon = self._lines and now_s < self._reported_s + _REPORT_EVERY_S
            if not self._lost or is_soon:
                return
            lost, self._lost = self._lost, 0
        self._reported_s = now_s
        if not self._written(self._encoded(self._lost_line(lost))):
            with self._changed:
                self._lost += lost

    def _write_or_count(self, line: bytes) -> None:
        if not self._written(line):
            with self._changed:
                self._lost += 1

    def _written(self, line: bytes) -> bool:
        """Writes a line; False if it could not be written as a whole."""
        rest = memoryview(b"\n" + line if self._is_torn else line)
        try:
            while rest:
                try:
                    done = os.write(self._descriptor, rest)
                except BlockingIOError:
                    self._wait_for_reader()  # whoever shares the open file made it non-blocking
                else:
                    rest = rest[done:]
                    self._is_torn = bool(rest)
        except OSError:
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def _wait_for_reader(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()
