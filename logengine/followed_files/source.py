"""An open file that is followed: what is read of it, and how far it is stored."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from logengine.followed_files.contents import Content
from logengine.followed_files.identity import HEAD_BYTES_MAX, Identity, identify
from logengine.followed_files.text import Ending, TextRules, convert

_READ_BYTES = 128 * 1024
# A file that was rotated gets its last lines until its program opens the new one. Only after so
# long without any is a last line without a newline taken for complete, and only after so long is
# the file closed; one that was removed sooner, because it takes space.
_GRACE_S = 5.0
_CLOSE_AFTER_S = 60.0
_CLOSE_REMOVED_AFTER_S = 10.0
_LAST_LINE_BYTES = 64 * 1024


class Reading(NamedTuple):
    """The records up to byte `position` of a file, as lines of JSON."""

    lines: bytes
    position: int


class Source:
    """A file of `path`, read from `position` on; the sender of its entries, and their reader.

    `identity` is None until a record of it was read. `on_durable` is called when what was read is
    stored, `on_room` when there is room to read more.
    """

    holds_parts = False  # only the file has what is not in an entry
    is_routed = False
    held_bytes = 0
    uid = os.geteuid()

    def __init__(
        self,
        path: str,
        stream: str,
        content: Content,
        identity: Identity | None,
        position: int,
        rules: TextRules,
        *,
        is_current: bool,
        is_complete: bool,
        on_durable: Callable[["Source"], None],
        on_room: Callable[["Source"], None],
    ) -> None:
        self.path = path
        self.stream = stream
        self.content = content
        self.identity = identity
        self.position = position
        self.is_current = is_current
        self._is_complete = is_complete  # a copy, to which nothing is appended
        self._rules = rules
        self._on_durable = on_durable
        self._on_room = on_room
        self.is_waiting = False  # for an entry to become durable
        self.waits_for_room = False
        self.problem = ""
        self._seen = (-1, -1)
        self._changed_s = 0.0
        self._has_ended = False  # all of a compressed file was read
        self._read_in_vain: tuple[int, int, Ending] | None = None
        self._is_cut: bool | None = None  # whether the position is within a line
        self.size = 0
        self.is_truncated = False  # or overwritten: it does not begin as it did
        self.is_gone = False  # it has no name any more

    def durable(self, number: int) -> None:
        """What was read is stored."""
        self.is_waiting = False
        self._on_durable(self)

    def resume(self) -> None:
        """There is room to read more."""
        self.waits_for_room = False
        self._on_room(self)

    def stall(self) -> None:
        """Does nothing: it never holds part of a record."""

    def look(self, now_s: float) -> None:
        """Notes what changed. Raises `OSError`. Blocks."""
        status = self.content.status()
        self.is_gone = status.st_nlink == 0
        if self.content.is_compressed:
            return
        seen = (status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._seen, self._changed_s = seen, now_s
        self.size = status.st_size
        self.is_truncated = not self._still_has(self.position)

    def _still_has(self, size: int) -> bool:
        """Whether it has `size` bytes, and begins as it did."""
        if self.content.is_compressed:
            return True
        if self.content.status().st_size < size:
            return False
        if self.identity is None:
            return True
        return self.identity.begins(self.content.read(0, self.identity.head_bytes))

    def skip(self) -> None:
        """Moves to the end, after the last complete line. Raises `OSError`. Blocks."""
        size = self.content.status().st_size
        start = max(0, size - _LAST_LINE_BYTES)
        tail = self.content.read(start, size - start)
        self.position = start + (tail.rfind(b"\n") + 1 or (len(tail) if start else 0))
        if self.position:
            self.identity = self._identify(min(self.position, HEAD_BYTES_MAX))

    def has_work(self, now_s: float) -> bool:
        """Whether there may be a record to read."""
        if self.content.is_compressed:
            return not self._has_ended
        state = (self.position, self.size, self._ending(now_s))
        return self.position < self.size and state != self._read_in_vain

    def may_close(self, now_s: float) -> bool:
        """Whether it was rotated, is stored, and nothing more is expected."""
        if self.is_current or self.is_waiting:
            return False
        if self._is_complete:
            return self._has_ended or (
                not self.content.is_compressed and self.position >= self.size
            )
        close_after_s = _CLOSE_REMOVED_AFTER_S if self.is_gone else _CLOSE_AFTER_S
        return now_s - self._changed_s >= close_after_s and self.position >= self.size

    def read(self, now: datetime, now_s: float) -> Reading:
        """Reads on. `now` is for times without a year, `now_s` by the loop's clock.

        Raises `OSError`. Blocks.
        """
        window = _READ_BYTES
        ending = self._ending(now_s)
        while True:
            data = self.content.read(self.position, window)
            is_all = len(data) < window
            if not is_all and data.startswith(b"\0") and not data.strip(b"\0"):
                after = self.content.end_of_nuls(self.position)
                if after > self.position:
                    self.position, self._is_cut = after, False
                    continue
            found = convert(
                data, self._rules, now, ending if is_all else Ending.MORE, is_cut=self._begins_cut()
            )
            if found.size or is_all or window >= self._rules.window_bytes:
                break
            window = min(2 * window, self._rules.window_bytes)
        if not self._still_has(self.position + len(data)):
            # It was truncated, perhaps before it was read: the bytes may be of what it has now.
            self.is_truncated = True
            return Reading(b"", self.position)
        if found.lines and self.identity is None:
            head = data if not self.position else b""
            self.identity = self._identify(min(self.position + found.size, HEAD_BYTES_MAX), head)
        self.position += found.size
        if found.size:
            self._is_cut = data[found.size - 1 : found.size] != b"\n"
        elif is_all:
            self._read_in_vain = (self.position, self.size, ending)
        self._has_ended = is_all and self._is_complete
        return Reading(found.lines, self.position)

    def go_back(self, position: int) -> None:
        """Reads from `position` on again, and forgets which file it is."""
        self.position, self.identity, self._is_cut = position, None, None

    def _begins_cut(self) -> bool:
        if self._is_cut is None:
            before = self.content.read(self.position - 1, 1) if self.position else b"\n"
            self._is_cut = before != b"\n"
        return self._is_cut

    def _identify(self, head_bytes: int, head: bytes = b"") -> Identity:
        found = self.content.found
        if self.content.is_compressed:
            head = found.head
        head = head or self.content.read(0, head_bytes)
        return identify(self.path, found.inode, head[:head_bytes])

    def _ending(self, now_s: float) -> Ending:
        if self._is_complete:
            return Ending.NOTHING
        quiet_s = now_s - self._changed_s
        if not self.is_current and quiet_s >= _GRACE_S:
            return Ending.NOTHING
        if quiet_s >= self._rules.wait_s:
            return Ending.QUIET
        return Ending.MORE
