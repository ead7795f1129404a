"""The frames of a stream's sealed segments, as their headers describe them: without reading them.

A sealed segment is never covered by another one, so what its header says of its records holds.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import UNSET

from logengine.disk.segment_file import list_segments, read_header
from logengine.errors import DamagedSegment
from logengine.format.segment import Header


class SealedFrame(msgspec.Struct, frozen=True):
    """`count` records from number `first` on.

    The least `_ts` of them is `since`, the greatest `until`. `segment` is the sha256 of the body of
    their segment.
    """

    segment: str
    first: int
    count: int
    since: str
    until: str

    @property
    def last(self) -> int:
        """The number of its last record."""
        return self.first + self.count - 1


# Takes a frame; returns whether its records need not be read.
Passes = Callable[[SealedFrame], bool]


class SealedFrames:
    """Finds frames of the stream in `directory`. Reads one header for the frames of a segment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._firsts: Sequence[int] | None = None
        self._frames: Sequence[SealedFrame] = ()

    def with_record(self, seq: int) -> SealedFrame | None:
        """The frame that contains this record; None if none is known. Raises `OSError`."""
        if not (self._frames and self._frames[0].first <= seq <= self._frames[-1].last):
            self._frames = self._frames_around(seq)
        at = bisect_right(self._frames, seq, key=lambda frame: frame.first) - 1
        return self._frames[at] if at >= 0 and seq <= self._frames[at].last else None

    def _frames_around(self, seq: int) -> Sequence[SealedFrame]:
        if self._firsts is None:
            self._firsts = list_segments(self._directory)
        at = bisect_right(self._firsts, seq) - 1
        if at < 0:
            return ()
        try:
            return _frames_of(read_header(self._directory, self._firsts[at]))
        except (DamagedSegment, FileNotFoundError):  # whoever reads it finds out what is wrong
            return ()


def _frames_of(header: Header) -> Sequence[SealedFrame]:
    if not header.is_sealed or header.frames is UNSET or header.index is UNSET:
        return ()
    frames = []
    first = header.first
    for frame, index in zip(header.frames, header.index, strict=True):
        frames.append(SealedFrame(header.sha256, first, frame.count, index.since, index.until))
        first += frame.count
    return frames
