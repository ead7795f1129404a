"""Removes what `retention` says is kept no longer. Blocking calls."""

import os
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET

from logengine.disk.directory import AnyDirectory, Directory, directory_at
from logengine.disk.durable_names import DurableNames
from logengine.disk.registered_cursors import read_cursors
from logengine.disk.segment_file import list_streams, read_header, size_of_segments
from logengine.errors import DamagedSegment
from logengine.format.segment import first_of_name, segment_name
from logengine.format.timestamp import format_timestamp
from logengine.upkeep.retention_plan import Oldest, Removal, RetentionRules, StreamUse, next_removal


class Retainer:
    """The streams of `data` under the rules; look first, then ask and remove, one at a time.

    `free_bytes` gives the room on the file system, `clock_ns` the time. Streams from which `names`
    may not remove are left alone: what was removed from them may come back, and a later one's
    removal would then be a gap. So are those of which it is not known where they end.
    """

    def __init__(
        self,
        data: AnyDirectory,
        rules: RetentionRules,
        *,
        names: DurableNames,
        free_bytes: Callable[[], int] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        is_known: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._data = directory_at(data)
        self._rules = rules
        self._free_bytes = free_bytes or self._free_on_disk
        self._clock_ns = clock_ns
        self._uses: dict[str, StreamUse] = {}
        self._cursors: Mapping[str, Mapping[str, int]] = {}
        self._names = names
        self._is_known = is_known
        self._supposed_free = 0

    def look(self) -> None:
        """Takes stock of all streams. Raises `OSError` and `InvalidCursor`."""
        self._uses = {stream: self._use_of(stream) for stream in list_streams(self._data)}
        self._cursors = read_cursors(self._data)

    def next_removal(self) -> Removal | None:
        """What is to go next, as things stood at the last look or removal."""
        ages = {self._rules.default.max_age, *(r.max_age for r in self._rules.streams.values())}
        now_ns = self._clock_ns()
        cutoffs = {age: format_timestamp(max(0, now_ns - int(age * 1e9))) for age in ages if age}
        free_bytes = self._free_bytes() + self._supposed_free
        uses = [
            use
            for use in self._uses.values()
            if self._names.may_remove_from(use.stream) and self._is_known(use.stream)
        ]
        return next_removal(uses, self._rules, cutoffs, free_bytes, self._cursors)

    def remove(self, removal: Removal) -> bool:
        """Removes a segment, durably; False if a full disk took it before. Raises `OSError`.

        If the directory cannot be synced, the stream is left alone from then on.
        """
        if not self._names.may_remove_from(removal.stream):
            return False
        with self._data.subdirectory(removal.stream) as directory:
            # A compaction does not sync what it removed: without what covers it, a part of that
            # would come back after a power cut.
            self._names.sync(directory)
            is_removed = self._names.remove(directory, removal.oldest.name)
        self._uses[removal.stream] = self._use_of(removal.stream)
        return is_removed

    def suppose(self, removal: Removal) -> None:
        """Goes on as if a segment were removed."""
        use = self._uses[removal.stream]
        self._supposed_free += removal.oldest.bytes
        with self._data.subdirectory(removal.stream) as directory:
            oldest = self._oldest(directory, removal.oldest.last + 1)
        self._uses[removal.stream] = msgspec.structs.replace(
            use,
            bytes=use.bytes - removal.oldest.bytes,
            oldest=oldest,
        )

    def _use_of(self, stream: str) -> StreamUse:
        with self._data.subdirectory(stream) as directory:
            return StreamUse(stream, size_of_segments(directory), self._oldest(directory, 1))

    def _oldest(self, directory: Directory, start: int) -> Oldest | None:
        """The oldest segment from number `start` on, if it may go."""
        names = {name for name in directory.names() if (first_of_name(name) or 0) >= start}
        firsts = sorted({first_of_name(name) or 0 for name in names})
        seals = [first for first in firsts if segment_name(first, compressed=True) in names]
        # The newest seal stays, for the next one names it.
        if not seals or firsts[0] == seals[-1]:
            return None
        try:
            header = read_header(directory, firsts[0])
        except DamagedSegment:
            return None  # until it is repaired
        name = header.file_name
        # What a compaction left that was cut short would come up, or a part of it.
        is_there_twice = header.is_compressed and segment_name(firsts[0]) in names
        covers_others = header.count > 0 and firsts[1] <= header.last
        if is_there_twice or covers_others or not (header.is_sealed or header.gap is not UNSET):
            return None
        return Oldest(name, header.last, directory.stat(name).st_size, header.until)

    def _free_on_disk(self) -> int:
        found = os.fstatvfs(self._data.descriptor)
        return found.f_bavail * found.f_frsize
