"""Makes search filters and frame times of sealed segments; removes those of segments that are gone.

A step examines one frame, so that whoever calls can pause between two steps. Blocking
calls.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from msgspec import UNSET

from logengine.disk.atomic import is_temp_name
from logengine.disk.directory import AnyDirectory, Directory, directory_at
from logengine.disk.search_filters import (
    FILTERS_NAME,
    filters_directory,
    filters_name,
    segment_of_name,
    times_name,
    write_file,
)
from logengine.disk.segment_file import list_streams, read_header_line, read_wanted
from logengine.errors import DamagedSegment
from logengine.format.block import Block
from logengine.format.frame_times import Bounds, encode_frame_times
from logengine.format.own_time import time_bounds
from logengine.format.search_filter import encode_filters, frame_filter
from logengine.format.segment import (
    COMPRESSED_SUFFIX,
    Header,
    first_of_name,
    header_sha256,
    is_stream_name,
    segment_name,
)


@dataclass
class _UnderWay:
    """A segment, which of its files are missing, and what they say of its first frames."""

    stream: str
    first: int
    header: Header
    segment: str
    missing: Collection[str]
    filters: list[bytes] = field(default_factory=list)
    times: list[Bounds] = field(default_factory=list)
    frames: int = 0  # that were examined


class SearchFilterBuilder:
    """Builds what is missing in `data`, the newest segments of a stream first.

    What `reserve` returns, in bytes, is left free for records. `step` runs in one thread at a time;
    any thread may call `changed`.
    """

    def __init__(self, data: AnyDirectory, reserve: Callable[[], int] = lambda: 0) -> None:
        self._data = directory_at(data)
        self._reserve = reserve
        self._is_begun = False
        self._changed: dict[str, None] = {}
        self._looked_at: set[str] = set()
        self._missing: list[tuple[str, int, Collection[str]]] = []  # and which files
        self._under_way: _UnderWay | None = None
        self._damaged: set[tuple[str, int]] = set()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return not self._is_begun or bool(self._changed or self._missing or self._under_way)

    def changed(self, stream: str) -> None:
        """Notes that a stream has a new sealed segment, or lost one."""
        self._changed[stream] = None

    def step(self, pace: Callable[[int], None]) -> None:
        """Does one thing: at most, it examines one frame.

        `pace` is called with the number of bytes after every piece, and may sleep. Raises what
        `pace` raises, and `OSError`: what is missing is then left until a stream changes.
        """
        try:
            self._step(pace)
        except FileNotFoundError:
            self._under_way = None  # the segment was removed
        except DamagedSegment:
            if self._under_way is not None:
                self._damaged.add((self._under_way.stream, self._under_way.first))
            self._under_way = None
        except OSError:
            self._under_way = None
            self._missing.clear()
            raise

    def _step(self, pace: Callable[[int], None]) -> None:
        if self._under_way is not None:
            self._build(self._under_way, pace)
        elif self._missing:
            self._begin(*self._missing.pop())
        elif self._changed:
            stream = next(iter(self._changed))
            del self._changed[stream]
            self._look(stream)
        else:
            self._is_begun = True
            self._changed.update(
                dict.fromkeys([*self._filtered_streams(), *list_streams(self._data)])
            )

    def _filtered_streams(self) -> list[str]:
        try:
            with self._data.subdirectory(FILTERS_NAME) as filters:
                return sorted(filter(is_stream_name, filters.names()))
        except FileNotFoundError:
            return []

    def _look(self, stream: str) -> None:
        """Finds the segments of a stream that have no filters, and removes what has no segment."""
        names: list[str] = []
        with contextlib.ExitStack() as stack:
            segments: Directory | None = None
            with contextlib.suppress(FileNotFoundError):
                segments = stack.enter_context(self._data.subdirectory(stream))
                names = segments.names()
            filters = stack.enter_context(filters_directory(self._data, stream))
            firsts = {first_of_name(name) for name in names if name.endswith(COMPRESSED_SUFFIX)}
            wanted = {
                name(first)
                for first in firsts
                if first is not None
                for name in (filters_name, times_name)
            }
            existing = set[str]() if filters is None else set(filters.names())
            if filters is not None:
                ours = {
                    name
                    for name in existing
                    if is_temp_name(name) or segment_of_name(name) is not None
                }
                _remove(filters, ours - wanted)
            if filters is not None and segments is not None and stream not in self._looked_at:
                existing -= _outdated(segments, filters, wanted & existing)
            self._looked_at.add(stream)
        missing: dict[int, list[str]] = {}
        for name in sorted(wanted - existing):
            missing.setdefault(segment_of_name(name) or 0, []).append(name)
        self._missing = [
            (stream, first, names)
            for first, names in missing.items()
            if (stream, first) not in self._damaged
        ]

    def _begin(self, stream: str, first: int, missing: Collection[str]) -> None:
        with self._data.subdirectory(stream) as directory:
            try:
                header, line = read_header_line(directory, first)
            except DamagedSegment:
                self._damaged.add((stream, first))
                return
        if header.frames is not UNSET and header.index is not UNSET:
            self._under_way = _UnderWay(stream, first, header, header_sha256(line), missing)

    def _build(self, at: _UnderWay, pace: Callable[[int], None]) -> None:
        assert at.header.frames is not UNSET
        if at.frames < len(at.header.frames):
            frames = range(at.frames, at.frames + 1)
            with self._data.subdirectory(at.stream) as directory:
                _, parts = read_wanted(directory, at.first, lambda _: frames)
            for part in parts:
                if not isinstance(part, Block):
                    raise part.damage
                if filters_name(at.first) in at.missing:
                    at.filters.append(frame_filter(part.body, pace))
                if times_name(at.first) in at.missing:
                    at.times.append(time_bounds(part.body, pace))
            at.frames += 1
        if at.frames == len(at.header.frames):
            self._write(at)
            self._under_way = None

    def _write(self, at: _UnderWay) -> None:
        files = {
            filters_name(at.first): encode_filters(at.segment, at.filters),
            times_name(at.first): encode_frame_times(at.segment, at.times),
        }
        files = {name: files[name] for name in at.missing}
        free = os.fstatvfs(self._data.descriptor)
        if free.f_bavail * free.f_frsize < sum(map(len, files.values())) + self._reserve():
            raise OSError(
                errno.ENOSPC,
                "too little is free for a search filter; the rest is left to records",
                f"{FILTERS_NAME}/{at.stream}/{filters_name(at.first)}",
            )
        with self._data.subdirectory(at.stream) as directory:
            _, line = read_header_line(directory, at.first)
        if header_sha256(line) == at.segment:
            for name, content in files.items():
                write_file(self._data, at.stream, name, content)


def _remove(directory: Directory, names: Collection[str]) -> None:
    # Not synced: a file that a power cut brings back is removed again.
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            directory.unlink(name)


def _outdated(segments: Directory, filters: Directory, names: Collection[str]) -> set[str]:
    """Returns the names of filters that are older than their segments, which were written again."""
    outdated = set()
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            first = segment_of_name(name) or 0
            segment = segments.stat(segment_name(first, compressed=True), follow_links=False)
            if filters.stat(name, follow_links=False).st_mtime_ns < segment.st_mtime_ns:
                outdated.add(name)
    return outdated
