"""Removes what `retention_plan` no longer keeps. Blocking calls."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import UNSET

from logengine.disk.directory import AnyDirectory, Directory, directory_at
from logengine.disk.durable_names import DurableNames
from logengine.disk.registered_cursors import read_cursors
from logengine.disk.segment_file import list_streams, read_header, size_of_segments
from logengine.errors import DamagedSegment
from logengine.format.segment import first_of_name, segment_name
from logengine.format.timestamp import format_timestamp
from logengine.upkeep.retention_plan import (
    Oldest,
    Removal,
    RetentionRules,
    StreamUse,
    last_written,
    next_removal,
)

_NS_MAX = 253_402_300_799 * 1_000_000_000  # the year 9999 ends: a file's time may be later


class Retainer:
    """Applies the rules to the streams of `data`; call `look`, then ask and remove, one at a time.

    `free_bytes` returns the free space on the file system, `clock_ns` the time by which ages are
    judged (`RetentionClock`). If no time of a segment is possible, its age counts from when this
    was first seen; unless this is `only_looking`, the file's time is then set to that.

    Streams from which `names` may not remove are left alone: segments removed earlier may come
    back, and removing a later one would then leave a gap. So are streams whose end is not known
    (`is_known`).
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
        only_looking: bool = False,
    ) -> None:
        self._data = directory_at(data)
        self._rules = rules
        self._free_bytes = free_bytes or self._free_on_disk
        self._clock_ns = clock_ns
        self._uses: dict[str, StreamUse] = {}
        self._cursors: Mapping[str, Mapping[str, int]] = {}
        self._names = names
        self._is_known = is_known
        self._only_looking = only_looking
        self._supposed_free = 0

    def look(self) -> None:
        """Surveys all streams and cursors. Raises `OSError` and `InvalidCursor`."""
        self._uses = {stream: self._use_of(stream) for stream in list_streams(self._data)}
        self._cursors = read_cursors(self._data)

    def next_removal(self) -> Removal | None:
        """Returns what to remove next, as of the last look or removal; None if nothing."""
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

    def remove(self, removal: Removal, on_removed: Callable[[], None] = lambda: None) -> bool:
        """Removes a segment durably. Raises `OSError`.

        Returns False if a full disk took it earlier, or nothing may be removed from the stream. If
        the directory cannot be synced, the stream is left alone from then on. `on_removed` is
        called as soon as the segment is gone, even if that cannot be synced.
        """
        if not self._names.may_remove_from(removal.stream):
            return False
        with self._data.subdirectory(removal.stream) as directory:
            # A compaction does not sync its removals. Without their cover, some of those segments
            # would come back after a power cut.
            self._names.sync(directory)
            is_removed = self._names.remove(directory, removal.oldest.name, on_removed)
        self._uses[removal.stream] = self._use_of(removal.stream)
        return is_removed

    def suppose(self, removal: Removal) -> None:
        """Continues as if a segment had been removed."""
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
        """Returns the oldest segment from number `start` on, if it may be removed."""
        names = {name for name in directory.names() if (first_of_name(name) or 0) >= start}
        firsts = sorted({first_of_name(name) or 0 for name in names})
        seals = [first for first in firsts if segment_name(first, compressed=True) in names]
        # The newest seal stays because the next one names it.
        if not seals or firsts[0] == seals[-1]:
            return None
        try:
            header = read_header(directory, firsts[0])
        except DamagedSegment:
            return None  # until it is repaired
        name = header.file_name
        # What an interrupted compaction left would reappear, or a part of it.
        is_there_twice = header.is_compressed and segment_name(firsts[0]) in names
        covers_others = header.count > 0 and firsts[1] <= header.last
        if is_there_twice or covers_others or not (header.is_sealed or header.gap is not UNSET):
            return None
        found = directory.stat(name)
        now_ns = max(0, self._clock_ns())
        until = last_written(
            header.latest,
            _untils(directory, header.until, firsts[1:]),
            format_timestamp(min(max(0, found.st_mtime_ns), _NS_MAX)),
            format_timestamp(now_ns),
        )
        if until is None:
            until = format_timestamp(now_ns)
            if not self._only_looking:
                with contextlib.suppress(OSError):
                    directory.set_time(name, now_ns)
        return Oldest(name, header.last, found.st_size, until)

    def _free_on_disk(self) -> int:
        found = os.fstatvfs(self._data.descriptor)
        return found.f_bavail * found.f_frsize


def _untils(directory: Directory, own: str, later: Sequence[int]) -> Iterator[str]:
    yield own
    for first in later:
        with contextlib.suppress(DamagedSegment, FileNotFoundError):
            yield read_header(directory, first).until
