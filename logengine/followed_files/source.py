"""An open file that is followed: what is read of it, and how far it is stored."""

import os
from collections import deque
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
# So many bytes before the position are compared at each look: a file that was truncated may be
# longer again by then, and begin as it did.
_TAIL_BYTES_MAX = 1024


class Reading(NamedTuple):
    """The records up to byte `position` of a file, as lines of JSON."""

    lines: bytes
    position: int


class Source:
    """A file of `path`, read from `position` on; the sender of its entries, and their reader.

    `identity` is None until a record of it was read, and `unread_head` has its first bytes until
    then. It covers more of a short file the more of it was read, and `outgrown` is the one before.
    `on_durable` is called when what was read is stored, `on_room` when there is room to read more.
    """

    holds_parts = False  # only the file has what is not in an entry
    is_routed = False  # how far it is stored is known to one stream
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
        self._identity_before = identity  # the last reading
        self.outgrown: Identity | None = None
        self.unread_head = b"" if identity else content.found.head.rstrip(b"\0")
        self.position = position
        self.is_current = is_current
        self._is_complete = is_complete  # a copy, to which nothing is appended
        self._rules = rules
        self._on_durable = on_durable
        self._on_room = on_room
        self._under_way: deque[tuple[int, int]] = deque()  # positions and bytes, not durable yet
        self.waits_for_room = False
        self.problem = ""
        self._seen = (-1, -1)
        self._changed_s = 0.0
        self._has_ended = False  # all of a compressed file was read
        self._read_in_vain: tuple[int, tuple[int, int], Ending] | None = None
        self._is_cut: bool | None = None  # whether the position is within a line
        self._tail = b""  # the bytes before the position, as they were read
        self.size = 0
        self.is_truncated = False  # or overwritten: it does not begin as it did
        self.is_gone = False  # it has no name any more

    def durable(self, number: int) -> None:
        """What was read up to byte `number` is stored."""
        while self._under_way and self._under_way[0][0] <= number:
            self._under_way.popleft()
        self._on_durable(self)

    def wait_for(self, position: int, size_bytes: int) -> None:
        """Notes that what was read up to `position` is being stored, in `size_bytes`."""
        self._under_way.append((position, size_bytes))

    @property
    def pieces_under_way(self) -> int:
        """How many pieces were read and are not stored yet."""
        return len(self._under_way)

    @property
    def under_way_bytes(self) -> int:
        """How many bytes of records are not stored yet."""
        return sum(size_bytes for _, size_bytes in self._under_way)

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
        if self.position and not self._tail:
            start = max(0, self.position - _TAIL_BYTES_MAX)
            self._tail = self.content.read(start, self.position - start)
        self.is_truncated = not self._still_has(self.position)

    def _still_has(self, size: int) -> bool:
        """Whether it has `size` bytes, and those that were read are as they were."""
        if self.content.is_compressed:
            return True
        if self.content.status().st_size < size:
            return False
        tail_start = self.position - len(self._tail)
        if self.content.read(tail_start, len(self._tail)) != self._tail:
            return False
        if self.identity is None:
            return self.content.read(0, len(self.unread_head)) == self.unread_head
        return self.identity.begins(self.content.read(0, self.identity.head_bytes))

    def renew_head(self, found: bytes | None) -> None:
        """Notes the first bytes that were `found`, if no record of it was read; None: reads them.

        If it does not begin as it did, the next look shall notice. Raises `OSError`. Blocks.
        """
        if self.identity is not None or self.content.is_compressed:
            return
        head = self.content.read(0, HEAD_BYTES_MAX) if found is None else found
        if head.startswith(self.unread_head):
            self.unread_head = head.rstrip(b"\0")  # they may be room for lines

    def skip(self) -> None:
        """Moves to the end, after the last complete line. Raises `OSError`. Blocks."""
        size = self.content.status().st_size
        start = max(0, size - _LAST_LINE_BYTES)
        tail = self.content.read(start, size - start)
        self.position = start + (tail.rfind(b"\n") + 1 or (len(tail) if start else 0))
        if self.position:
            self._recognize(self._head(self.position))

    def has_work(self, now_s: float) -> bool:
        """Whether there may be a record to read."""
        if self.content.is_compressed:
            return not self._has_ended
        # In room that a program has made for its lines, they do not change the size.
        state = (self.position, self._seen, self._ending(now_s))
        return self.position < self.size and state != self._read_in_vain

    def may_close(self, now_s: float) -> bool:
        """Whether it was rotated, is stored, and nothing more is expected."""
        if self.is_current or self._under_way:
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
        self._identity_before = self.identity
        window = _READ_BYTES
        ending = self._ending(now_s)
        while True:
            data = self.content.read(self.position, window)
            is_all = len(data) < window
            if not is_all and data.startswith(b"\0") and not data.strip(b"\0"):
                after = self.content.end_of_nuls(self.position)
                if after > self.position:
                    self.position, self._is_cut, self._tail = after, False, b""
                    continue
            is_open = not is_all and ending is not Ending.NOTHING
            if is_open and self._ends_in_room(data):
                data, is_all = data.rstrip(b"\0"), True
                ending = Ending.MORE
            found = convert(
                data, self._rules, now, ending if is_all else Ending.MORE, is_cut=self._begins_cut()
            )
            if found.size or is_all or window >= self._rules.window_bytes:
                break
            window = min(2 * window, self._rules.window_bytes)
        head = self._head(self.position + found.size, b"" if self.position else data)
        if not self._still_has(self.position + len(data)):
            # It was truncated, perhaps before it was read: the bytes may be of what it has now.
            self.is_truncated = True
            return Reading(b"", self.position)
        if found.lines:
            self._recognize(head)
        self._move(found.size, data)
        if found.size:
            self._is_cut = data[found.size - 1 : found.size] != b"\n"
        elif is_all:
            self._read_in_vain = (self.position, self._seen, ending)
        self._has_ended = is_all and self._is_complete
        return Reading(found.lines, self.position)

    def _ends_in_room(self, data: bytes) -> bool:
        """Whether the last line is cut off by NULs up to the end of the file: room for its rest."""
        text_bytes = len(data.rstrip(b"\0"))
        if text_bytes in (0, len(data)) or data[text_bytes - 1 : text_bytes] == b"\n":
            return False
        place = self.position + text_bytes
        return self.content.end_of_nuls(place) == place

    def go_back(self, position: int) -> None:
        """Takes the last reading back, and reads from `position` on again."""
        self.position, self.identity, self._is_cut = position, self._identity_before, None
        self.outgrown, self._tail = None, b""

    def _begins_cut(self) -> bool:
        if self._is_cut is None:
            before = self.content.read(self.position - 1, 1) if self.position else b"\n"
            self._is_cut = before != b"\n"
        return self._is_cut

    def _head(self, size: int, known: bytes = b"") -> bytes:
        """Returns what the identity covers once `size` bytes are read; `known` is the start."""
        head_bytes = min(size, HEAD_BYTES_MAX)
        if self.identity is not None and self.identity.head_bytes >= head_bytes:
            return b""
        if self.content.is_compressed:
            return self.content.found.head[:head_bytes]
        return known[:head_bytes] or self.content.read(0, head_bytes)

    def _recognize(self, head: bytes) -> None:
        before = self.identity
        if head:
            inode = self.content.found.inode if before is None else before.inode
            self.identity, self.outgrown = identify(self.path, inode, head), before

    def _move(self, size: int, data: bytes) -> None:
        self._tail = (self._tail + data[:size][-_TAIL_BYTES_MAX:])[-_TAIL_BYTES_MAX:]
        self.position += size

    def _ending(self, now_s: float) -> Ending:
        if self._is_complete:
            return Ending.NOTHING
        quiet_s = now_s - self._changed_s
        if not self.is_current and quiet_s >= _GRACE_S:
            return Ending.NOTHING
        if quiet_s >= self._rules.wait_s:
            return Ending.QUIET
        return Ending.MORE
