"""Rewrites segments: several into one plain or one compressed and sealed one. Blocking calls.

The result is written and fsynced as a temp; publishing it is up to the caller.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
from msgspec import UNSET

from logengine.disk.directory import AnyDirectory, directory_at
from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import read_content, read_header, read_header_line, read_segment
from logengine.errors import DamagedSegment, LogEngineError
from logengine.format.compression import compress_body, encode_compressed_header, with_frames
from logengine.format.segment import Header, Sign, encode_header, hash_for_successor, signed
from logengine.store.stream import SegmentWriter
from logengine.upkeep.compaction_plan import EndedSegment, earlier_seals, merged_header


class CompactionStopped(LogEngineError):
    """A rewrite was stopped before it was done; nothing of it is visible."""


class Pace:
    """Limits the rate of the bytes that pass through it, in bytes per second.

    Used by one thread; any thread may call `stop`, which ends the waiting immediately.
    """

    def __init__(self, rate_max: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_max = rate_max
        self._clock = clock
        self._free_at = 0.0
        self._stopping = threading.Event()

    def rest(self, count: int) -> None:
        """Waits until `count` more bytes are within the rate. Raises `CompactionStopped`."""
        self.rest_or_hurry(count)
        if self._stopping.is_set():
            raise CompactionStopped("the daemon stops")

    def rest_or_hurry(self, count: int) -> None:
        """Waits like `rest`, but never raises: after `stop` it returns immediately."""
        now = self._clock()
        # Unused budget is not accumulated, because it would be spent in one burst.
        self._free_at = max(self._free_at, now) + count / self._rate_max
        if self._free_at > now:
            self._stopping.wait(self._free_at - now)

    def stop(self) -> None:
        """Ends every wait, including later ones."""
        self._stopping.set()


class _Rendered(msgspec.Struct, frozen=True):
    """A segment whose bytes already exist."""

    stream: str
    file_name: str
    pieces: list[bytes]

    def render(self) -> list[bytes]:
        return self.pieces


class Rewriter:
    """Rewrites segments of the streams in `data` at a limited rate.

    `level` is zstd's; `sign` signs seals, None if they are not signed. What `reserve` returns, in
    bytes, is left free for records; 0 for no limit. Every method raises `OSError`,
    `DamagedSegment` and `CompactionStopped`, and then leaves nothing behind.
    """

    def __init__(
        self,
        data: AnyDirectory,
        pace: Pace,
        *,
        names: DurableNames,
        direct_above: int,
        level: int,
        sign: Sign | None = None,
        reserve: Callable[[], int] = lambda: 0,
    ) -> None:
        self._data = directory_at(data)
        self._names = names
        self.pace = pace
        self._direct_above = direct_above
        self._level = level
        self._sign = sign
        self._reserve = reserve

    def merge(self, stream: str, parts: Sequence[EndedSegment]) -> tuple[SegmentWriter, Header]:
        """Writes one plain segment of all `parts`, which are neighbours."""
        header, bodies = self._read(stream, parts)
        return self._prepared(header, [encode_header(header), *bodies]), header

    def seal(
        self, stream: str, parts: Sequence[EndedSegment], after: int | None
    ) -> tuple[SegmentWriter, Header]:
        """Writes one sealed segment of all `parts`; `after` is the sealed one before it, if any."""
        header, bodies = self._read(stream, parts)
        frames = list(compress_body(bodies, self._level, self.pace.rest))
        header = self._chained(with_frames(header, frames), after)
        if self._sign is not None:
            header = signed(header, self._sign)
        pieces = [encode_compressed_header(header), *(frame.content for frame in frames)]
        return self._prepared(header, pieces), header

    def _chained(self, header: Header, after: int | None) -> Header:
        """Returns the header of a seal that follows the seal `after`, and names it."""
        if after is None:
            return msgspec.structs.replace(header, prev="")
        farther = None
        with self._data.subdirectory(header.stream) as directory:
            before, line = read_header_line(directory, after)
            if before.earlier is not UNSET:
                with suppress(DamagedSegment, FileNotFoundError):  # removed by retention
                    farther = read_header(directory, before.earlier.first)
        is_neighbour = before.last + 1 == header.first  # else a recorded gap is between
        return msgspec.structs.replace(
            header,
            prev=hash_for_successor(before, line),
            earlier=earlier_seals(before, farther) if is_neighbour else UNSET,
        )

    def copy(self, stream: str, first: int) -> SegmentWriter:
        """Writes the same segment again, because the existing one may not be durable."""
        with self._data.subdirectory(stream) as directory:
            header, content = read_content(directory, first)
        return self._prepared(header, [content])

    def _read(self, stream: str, parts: Sequence[EndedSegment]) -> tuple[Header, list[bytes]]:
        """Returns the header of all `parts` as one plain segment, and their bodies."""
        headers, bodies = [], []
        digest = hashlib.sha256()
        with self._data.subdirectory(stream) as directory:
            for part in parts:
                header, body = read_segment(directory, part.first, self.pace.rest)
                assert (header.last, header.is_compressed) == (part.last, part.is_compressed)
                digest.update(body)
                headers.append(header)
                bodies.append(body)
        return merged_header(headers, digest.hexdigest()), bodies

    def _prepared(self, header: Header, pieces: list[bytes]) -> SegmentWriter:
        if reserve := self._reserve():
            self._check_room(header, sum(map(len, pieces)) + reserve)
        rendered = _Rendered(header.stream, header.file_name, pieces)
        writer = SegmentWriter(
            self._data,
            rendered,
            names=self._names,
            direct_above=self._direct_above,
            pace=self.pace.rest,
        )
        writer.prepare()
        return writer

    def _check_room(self, header: Header, size_bytes: int) -> None:
        """Raises `OSError` if less is free: commits would fail while the copy is there."""
        found = os.fstatvfs(self._data.descriptor)
        if found.f_bavail * found.f_frsize < size_bytes:
            raise OSError(
                errno.ENOSPC,
                "too little is free to rewrite it; the rest is left to records",
                f"{header.stream}/{header.file_name}",
            )
