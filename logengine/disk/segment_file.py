"""Segments as files in a stream's directory: list, read, check. Blocking calls.

This module connects the names and bytes of `segment` with the file system; the store and the
reader both read through it. Callers need not know whether a segment is compressed.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from logengine.disk.directory import (
    AnyDirectory,
    Directory,
    names_during_changes,
    opened,
    opened_stream,
)
from logengine.disk.regular_file import kind_of, open_at_path
from logengine.errors import DamagedSegment, UnexpectedFile, UnreadableSegment
from logengine.format.block import Block
from logengine.format.segment import (
    BODY_BYTES_MAX,
    HEADER_READ_BYTES,
    HEADER_START,
    Frame,
    Header,
    check_body,
    check_header_of,
    decode_header,
    first_of_name,
    header_length,
    header_sha256,
    is_stream_name,
    segment_name,
)

# Producers and users in a header are bounded; anything far larger is not a header.
_HEADER_BYTES_MAX = 64 * 1024 * 1024
SEGMENT_BYTES_MAX = _HEADER_BYTES_MAX + BODY_BYTES_MAX
_PIECE_BYTES = 128 * 1024
_STAT_BLOCK_BYTES = 512  # stat(2): the unit of st_blocks, whatever the file system's


def list_streams(data: AnyDirectory) -> list[str]:
    """The streams in a data directory, sorted by name. Raises `OSError`.

    A stream is a directory with a stream's name. A link to a directory is none: `not_streams`.
    """
    with opened(data) as within, within.entries() as entries:
        return sorted(
            entry.name
            for entry in entries
            if is_stream_name(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def not_streams(data: AnyDirectory) -> dict[str, str]:
    """What has a stream's name, but is neither a directory nor a regular file; and what it is.

    Nobody reads or writes it as a stream. Raises `OSError`.
    """
    found: dict[str, str] = {}
    with opened(data) as within, within.entries() as entries:
        for entry in entries:
            if is_stream_name(entry.name) and not entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                        found[entry.name] = f"it is {kind_of(mode)}; a stream is a directory"
    return dict(sorted(found.items()))


def list_segments(directory: AnyDirectory) -> list[int]:
    """The first sequence numbers of a stream's segments, ascending. Raises `OSError`.

    A segment that exists twice, for example while it is being compressed, is listed once. A
    segment that was just removed may be listed.
    """
    return segments_among(names_during_changes(directory))


def segments_among(names: Iterable[str]) -> list[int]:
    """What `list_segments` returns for a directory that contains `names`."""
    return sorted({first for name in names if (first := first_of_name(name))})


def sizes_of_segments(directory: AnyDirectory) -> dict[int, int]:
    """The approximate bytes of the files of each of a stream's segments, by their first number.

    They may change meanwhile. Raises `OSError`.
    """
    sizes: dict[int, int] = {}
    with opened_stream(directory) as within, within.entries() as entries:
        for entry in entries:
            if first := first_of_name(entry.name):
                with suppress(FileNotFoundError):  # merged since it was listed
                    size = entry.stat(follow_symlinks=False).st_size
                    sizes[first] = sizes.get(first, 0) + size
    return sizes


def size_of_segments(directory: AnyDirectory) -> int:
    """The approximate bytes of a stream's files, which may change meanwhile. Raises `OSError`."""
    return sum(sizes_of_segments(directory).values())


def disk_bytes_of(directory: AnyDirectory, first: int) -> int:
    """The bytes that the files of segment `first` occupy on disk. Raises `OSError`."""
    taken = 0
    with opened_stream(directory) as within:
        for compressed in (False, True):
            with suppress(FileNotFoundError):
                name = segment_name(first, compressed=compressed)
                found = within.stat(name, follow_links=False)
                taken += found.st_blocks * _STAT_BLOCK_BYTES
    return taken


def read_header(directory: AnyDirectory, first: int) -> Header:
    """The header of segment `first`, checked against the file's name and size.

    Reads a few kilobytes, whatever the size of the segment. Raises `DamagedSegment`, and
    `OSError` if the file cannot be opened.
    """
    with closing(_open(directory, first)) as file, file.errors_are_damage():
        header, body_start = file.read_header()
        file.check_size(header, body_start)
        return header


def read_segment(
    directory: AnyDirectory, first: int, pace: Callable[[int], None] | None = None
) -> tuple[Header, bytes]:
    """Header and body of segment `first`, checked to the bit.

    With `pace`, reads in pieces and calls `pace` after each with its size in bytes; `pace` may
    sleep. Raises `DamagedSegment`, and `OSError` if the file cannot be opened.
    """
    with closing(_open(directory, first)) as file, file.errors_are_damage():
        header, body_start = file.read_header()
        file.check_size(header, body_start)
        return header, file.read_body(header, body_start, pace)


class ProvenFrame(NamedTuple):
    """Records of a segment, from number `first` on, that match its header.

    `stored` is the frame that contains them, None if no frame can be read separately.
    """

    first: int
    records: int
    body: bytes
    stored: bytes | None

    @property
    def last(self) -> int:
        """The number of its last record."""
        return self.first + self.records - 1


class Provable(NamedTuple):
    """What a file proves: its header and header line, its records, and the damage, if any.

    If the header is None, it is damaged, and there are no records. A header with another number
    than the file's name is returned if everything else is whole; the damage is then the name.
    """

    header: Header | None
    line: bytes
    frames: list[ProvenFrame]
    damage: DamagedSegment | None


def read_provable(directory: AnyDirectory, first: int, *, compressed: bool) -> Provable:
    """What one file of segment `first`, plain or `compressed`, proves by itself.

    Raises `OSError` if the file cannot be opened.
    """
    try:
        file = _open_as(directory, first, compressed=compressed)
    except DamagedSegment as damage:
        return Provable(None, b"", [], damage)
    with closing(file):
        try:
            with file.errors_are_damage():
                line, body_start = file.header_line()
                header = decode_header(line, file.path)
        except DamagedSegment as damage:
            return Provable(None, b"", [], damage)
        try:
            file.check_names(header)
        except DamagedSegment as damage:
            found = file.read_provable(header, line, body_start)
            if isinstance(found.damage, UnreadableSegment):
                return Provable(None, b"", [], found.damage)
            is_ours = (header.stream, header.is_compressed) == (directory.name, compressed)
            if not is_ours or found.damage is not None:
                return Provable(None, b"", [], damage)
            return found._replace(damage=damage)
        return file.read_provable(header, line, body_start)


class Content(NamedTuple):
    """The content of a segment's file: `stored` is the stored form of `body`."""

    header: Header
    header_sha256: str
    body: bytes
    stored: bytes


def read_as_stored(
    directory: AnyDirectory, first: int, wants: Callable[[Header], bool], *, compressed: bool
) -> Content | None:
    """One file of segment `first`, plain or `compressed`, checked to the bit; None if not wanted.

    Raises `DamagedSegment`, and `OSError` if the file cannot be opened.
    """
    with closing(_open_as(directory, first, compressed=compressed)) as file:
        with file.errors_are_damage():
            header, body_start = file.read_header()
            file.check_size(header, body_start)
            if not wants(header):
                return None
            body = file.read_body(header, body_start)
            stored = body
            if compressed:
                stored = os.pread(file.descriptor, header.stored_bytes, body_start)
            line, _ = file.header_line()
        return Content(header, header_sha256(line), body, stored)


class DamagedRecords(NamedTuple):
    """Records from `first` to `last` that are missing from a segment, and the damage.

    `last` is less than `first` if the file is damaged but no record is.
    """

    first: int
    last: int
    damage: DamagedSegment


Parts = list[Block | DamagedRecords]

# Takes the number and the `header_sha256` of a segment. Returns for each frame whether a record in
# it may match a search, or None if that is not known.
MayMatch = Callable[[int, str], Sequence[bool] | None]


def read_wanted(
    directory: AnyDirectory,
    first: int,
    wanted: Callable[[Header], range],
    may_match: MayMatch | None = None,
) -> tuple[Header, Parts]:
    """The header of segment `first` and its `wanted` records, in order.

    `wanted` selects neighbouring frames; a plain segment has one frame. Of these, a frame that
    cannot match according to `may_match` is omitted, and not checked. The records are checked to
    the bit. If the check fails, the provable parts are returned: the frames of a compressed
    segment that match the index in the header, and all or nothing of a plain segment. Raises
    `DamagedSegment` if the header is damaged, and `OSError` if the file cannot be opened.
    """
    with closing(_open(directory, first)) as file:
        return file.read_wanted(wanted, may_match)


def read_wanted_plain(
    directory: AnyDirectory, first: int, wanted: Callable[[Header], range]
) -> tuple[Header, Parts] | None:
    """`read_wanted` for the plain file of a segment that is compressed too; None if missing."""
    try:
        file = _open_as(directory, first, compressed=False)
    except FileNotFoundError:
        return None
    with closing(file):
        return file.read_wanted(wanted)


def read_header_line(directory: AnyDirectory, first: int) -> tuple[Header, bytes]:
    """The header of segment `first`, and the line that contains it. Raises as `read_header`."""
    with closing(_open(directory, first)) as file, file.errors_are_damage():
        header, _ = file.read_header()
        return header, file.header_line()[0]


def read_content(directory: AnyDirectory, first: int) -> tuple[Header, bytes]:
    """The header of segment `first`, and all bytes of its file, checked to the bit.

    Raises as `read_segment`.
    """
    with closing(_open(directory, first)) as file, file.errors_are_damage():
        header, body_start = file.read_header()
        file.read_body(header, body_start)
        with open(file.descriptor, "rb", buffering=0, closefd=False) as whole:
            whole.seek(0)
            return header, whole.read()


def _pieces(
    file: io.FileIO, wanted: int, at_once: int, pace: Callable[[int], None] | None
) -> Iterator[bytes]:
    while wanted and (piece := file.read(min(at_once, wanted))):
        wanted -= len(piece)
        yield piece
        if pace is not None:
            pace(len(piece))


@dataclass(frozen=True)
class _SegmentFile:
    """An open segment file."""

    path: str
    descriptor: int
    stream: str
    first: int
    is_compressed: bool

    def close(self) -> None:
        """Closes the file."""
        os.close(self.descriptor)

    def read_header(self) -> tuple[Header, int]:
        """The header, and the offset of the body in the file."""
        line, length = self.header_line()
        header = decode_header(line, self.path)
        self.check_names(header)
        return header, length

    def check_names(self, header: Header) -> None:
        """Raises `DamagedSegment` unless the header matches the file's path."""
        check_header_of(header, self.stream, self.first, self.path, compressed=self.is_compressed)

    def header_line(self) -> tuple[bytes, int]:
        """The line that contains the header, and the offset of the body in the file."""
        start = os.pread(self.descriptor, HEADER_READ_BYTES, 0)
        while (found := self._split_header(start)) is None:
            if len(start) > _HEADER_BYTES_MAX:
                raise DamagedSegment(self.path, "it begins with no segment header: no end in sight")
            if start and not (self.is_compressed or start.startswith(HEADER_START[: len(start)])):
                raise DamagedSegment(self.path, "it begins with no segment header")
            wanted = min(len(start) or HEADER_READ_BYTES, _HEADER_BYTES_MAX + 1 - len(start))
            more = os.pread(self.descriptor, wanted, len(start))
            if not more:
                how = "empty" if not start else "cut short"
                raise DamagedSegment(self.path, f"it is {how}: no complete header")
            start += more
        return found

    def check_size(self, header: Header, body_start: int) -> None:
        """Raises `DamagedSegment` unless the file has the length that its header says."""
        found_bytes = os.fstat(self.descriptor).st_size
        expected_bytes = body_start + header.stored_bytes
        if found_bytes != expected_bytes:
            raise DamagedSegment(
                self.path, f"it has {found_bytes} bytes, its header says {expected_bytes}"
            )

    def read_body(
        self,
        header: Header,
        start: int,
        pace: Callable[[int], None] | None = None,
        *,
        is_last: bool = True,
    ) -> bytes:
        """The body, which begins at offset `start`, checked to the bit.

        With `is_last`, the file must end after the body; otherwise later bytes are ignored.
        """
        # One byte more than the header says: whether the file ends there.
        wanted = header.stored_bytes + is_last
        with open(self.descriptor, "rb", buffering=0, closefd=False) as file:
            file.seek(start)
            pieces = _pieces(file, wanted, wanted if pace is None else _PIECE_BYTES, pace)
            body = b"".join(pieces)
        if header.frames is not UNSET:
            from logengine.format.compression import decompress_frames

            body = decompress_frames(header, body, range(len(header.frames)), self.path)
        check_body(header, body, self.path)
        return body

    def read_wanted(
        self, wanted: Callable[[Header], range], may_match: MayMatch | None = None
    ) -> tuple[Header, Parts]:
        """The header, and the provable parts of the `wanted` records.

        If any part is damaged, no frame is omitted.
        """
        with self.errors_are_damage():
            line, body_start = self.header_line()
            header = decode_header(line, self.path)
            self.check_names(header)
        frames = wanted(header)
        if not frames:
            return header, []
        to_read = _one_by_one(header, frames)
        if may_match is not None and header.frames is not UNSET and header.index is not UNSET:
            matching = may_match(self.first, header_sha256(line))
            if matching is not None and len(matching) == len(header.frames):
                to_read = [each for each in to_read if matching[each.start]]
        try:
            with self.errors_are_damage():
                self.check_size(header, body_start)
                return header, [self.read_frames(header, body_start, run) for run in to_read]
        except DamagedSegment as damage:
            return header, self._read_parts(header, body_start, frames, damage)

    def read_provable(self, header: Header, line: bytes, start: int) -> Provable:
        """What the header in `line` proves about the body, which begins at offset `start`."""
        damage: DamagedSegment | None = None
        try:
            with self.errors_are_damage():
                self.check_size(header, start)
        except DamagedSegment as of_size:
            damage = of_size
        frames: list[ProvenFrame] = []
        count = 1 if header.frames is UNSET or header.index is UNSET else len(header.frames)
        for at in range(count):
            try:
                with self.errors_are_damage():
                    block = self.read_frames(header, start, range(at, at + 1))
                    stored = None
                    if header.frames is not UNSET and header.index is not UNSET:
                        stored = self._stored_frame(header.frames, start, at)
                frames.append(ProvenFrame(block.first, block.count, block.body, stored))
            except DamagedSegment as of_frame:
                if damage is None or isinstance(of_frame, UnreadableSegment):
                    damage = of_frame
        if damage is None and header.index is not UNSET:
            try:
                check_body(header, b"".join(frame.body for frame in frames), self.path)
            except DamagedSegment as of_body:
                damage = of_body
        return Provable(header, line, frames, damage)

    def _stored_frame(self, frames: Sequence[Frame], start: int, at: int) -> bytes:
        place = start + sum(frame.stored_bytes for frame in frames[:at])
        return os.pread(self.descriptor, frames[at].stored_bytes, place)

    def _read_parts(
        self, header: Header, start: int, wanted: range, damage: DamagedSegment
    ) -> Parts:
        """The `wanted` frames that match the header, although the file has `damage`."""
        parts: Parts = []
        for frames in _one_by_one(header, wanted):
            try:
                with self.errors_are_damage():
                    parts.append(self.read_frames(header, start, frames))
            except DamagedSegment as of_frame:
                lost = DamagedRecords(*_seqs_of(header, frames), of_frame)
                before = parts[-1] if parts else None
                if isinstance(before, DamagedRecords):
                    parts[-1] = before._replace(last=lost.last)
                else:
                    parts.append(lost)
        if not any(isinstance(part, DamagedRecords) for part in parts):
            parts.append(DamagedRecords(header.last + 1, header.last, damage))
        return parts

    def read_frames(self, header: Header, start: int, wanted: range) -> Block:
        """The records of neighbouring frames of the body, which begins at offset `start`.

        Checks each frame against the header's index, instead of the hash of the whole body.
        Without an index, returns all records. Ignores bytes after the body.
        """
        if header.frames is UNSET or header.index is UNSET:
            body = self.read_body(header, start, is_last=False)
            return Block(header.stream, header.first, header.count, body)
        from logengine.format.compression import decompress_frames

        before, frames = header.frames[: wanted.start], header.frames[wanted.start : wanted.stop]
        stored = os.pread(
            self.descriptor,
            sum(frame.stored_bytes for frame in frames),
            start + sum(frame.stored_bytes for frame in before),
        )
        return Block(
            header.stream,
            header.first + sum(frame.count for frame in before),
            sum(frame.count for frame in frames),
            decompress_frames(header, stored, wanted, self.path),
        )

    @contextmanager
    def errors_are_damage(self) -> Iterator[None]:
        """Turns a disk error (EIO) on the file into `UnreadableSegment`."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise UnreadableSegment(self.path, f"it cannot be read: {error.strerror}") from error

    def _split_header(self, start: bytes) -> tuple[bytes, int] | None:
        if not start:
            return None
        if self.is_compressed:
            from logengine.format.compression import split_header

            return split_header(start, self.path, _HEADER_BYTES_MAX)
        length = header_length(start)
        return None if length is None else (start[:length], length)


def _one_by_one(header: Header, wanted: range) -> list[range]:
    """The `wanted` frames, each by itself if the header has a hash for each.

    Reading ahead then needs a third less memory than with all of them in one block.
    """
    if header.frames is UNSET or header.index is UNSET:
        return [wanted]
    return [range(at, at + 1) for at in wanted]


def _seqs_of(header: Header, frames: range) -> tuple[int, int]:
    """The first and last number of the records in neighbouring frames."""
    if header.frames is UNSET or header.index is UNSET:
        return header.first, header.last
    first = header.first + sum(frame.count for frame in header.frames[: frames.start])
    return first, first - 1 + sum(
        frame.count for frame in header.frames[frames.start : frames.stop]
    )


def _open(directory: AnyDirectory, first: int) -> _SegmentFile:
    """Opens segment `first`: the compressed file if it exists, otherwise the plain one."""
    # A plain segment is removed once the compressed one exists. If neither is found, that
    # happened between the two attempts, or there is none.
    for compressed in (True, False):
        with suppress(FileNotFoundError):
            return _open_as(directory, first, compressed=compressed)
    return _open_as(directory, first, compressed=True)


def _open_as(directory: AnyDirectory, first: int, *, compressed: bool) -> _SegmentFile:
    name = segment_name(first, compressed=compressed)
    path = os.path.join(str(directory), name)
    try:
        if isinstance(directory, Directory):
            descriptor = directory.open_file(name, os.O_RDONLY)
        else:
            descriptor = open_at_path(path, os.O_RDONLY)
    except UnexpectedFile as error:
        if error.filename != path:
            raise  # the stream itself
        raise DamagedSegment(path, str(error.strerror)) from error
    return _SegmentFile(path, descriptor, directory.name, first, compressed)
