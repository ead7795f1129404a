"""Compressed segments: zstd frames that `zstdcat` makes a plain segment of.

    00000000000000000001.ndjson.zst      the name is that of a plain segment, and `.zst`
    frame: {"_segment":1,…,"frames":…}   the first frame is the header line
    frame: {"_ts":"…",…} …               every other holds some of the records, whole

Each frame says how much it holds, and has a checksum of that. The header says where each
frame begins, from when its records are, and its hash, so that one can be had, and trusted,
without the others. Bytes in, values out; compressing and decompressing release the GIL.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec
import zstandard
from msgspec import UNSET

from logengine.errors import DamagedSegment
from logengine.format.record import TIMESTAMP_START
from logengine.format.segment import (
    Frame,
    Header,
    IndexEntry,
    count_newlines,
    encode_header,
    timestamp_of,
)
from logengine.format.timestamp import TIMESTAMP_CHARACTERS

# Large enough to compress well, small enough to be had alone.
FRAME_BYTES = 1024 * 1024

# So much of a frame at a time: what else the machine has to do waits a third of a millisecond
# for one, and three for a whole frame.
_PIECE_BYTES = 128 * 1024
_HEADER_LEVEL = 3
_CHECKSUM_BYTES = 4
_BLOCK_HEADER_BYTES = 3
_RLE_BLOCK = 1
_SALVAGE_BYTES = 256
# The time of every line of a body but the first. With `^` in place of the newline it takes ten
# times as long, and nothing else runs meanwhile.
_TIMESTAMPS = re.compile(rb"\n.{%d}(.{%d})" % (TIMESTAMP_START, TIMESTAMP_CHARACTERS))
# So far behind a piece ends what begins with its last byte.
_LOOK_AHEAD = TIMESTAMP_START + TIMESTAMP_CHARACTERS


class StoredFrame(NamedTuple):
    """A frame as it is to be written, and as the header is to name it."""

    content: bytes
    frame: Frame


class RecordFrame(NamedTuple):
    """A frame of records: as a `StoredFrame`, and its entry in the header's index."""

    content: bytes
    frame: Frame
    entry: IndexEntry


def _free(_count: int) -> None:
    """What is compressed at once, however much there is."""


def compress_lines(chunks: Iterable[bytes], level: int) -> Iterator[StoredFrame]:
    """The frames of lines that come in chunks of whole ones, with their newlines.

    A frame holds at least `FRAME_BYTES` of it, but the last one; it is longer by less than
    a chunk that it did not end at, or by the end of a line of a chunk longer than itself. Each
    is compressed when it is asked for.
    """
    compressor = _compressor(level)
    for body in _frame_bodies(chunks):
        yield _stored(compressor.compress(body), body)


def compress_body(
    chunks: Iterable[bytes], level: int, pace: Callable[[int], None] = _free
) -> Iterator[RecordFrame]:
    """The frames of a body, cut as `compress_lines` does it.

    `pace` is called behind every piece of a frame, with its bytes, and may rest.
    """
    compressor = _compressor(level)
    for body in _frame_bodies(chunks):
        # Its size is told before, for that stands in the frame's own header.
        frame = compressor.compressobj(size=len(body))
        pieces: list[bytes] = []
        times: set[bytes] = set()
        for start in range(0, len(body), _PIECE_BYTES):
            piece = memoryview(body)[start : start + _PIECE_BYTES]
            pieces.append(frame.compress(piece))
            times.update(_TIMESTAMPS.findall(body, start, start + len(piece) + _LOOK_AHEAD))
            pace(len(piece))
        pieces.append(frame.flush())
        yield _with_entry(_stored(b"".join(pieces), body), body, times)


def record_frame(content: bytes, frame: Frame, body: bytes) -> RecordFrame:
    """A frame whose content is `body`, with what the header's index is to say of it."""
    return _with_entry(StoredFrame(content, frame), body, _TIMESTAMPS.findall(body))


def _stored(content: bytes, body: bytes) -> StoredFrame:
    return StoredFrame(content, Frame(len(content), len(body), count_newlines(body)))


def _with_entry(stored: StoredFrame, body: bytes, later_times: Iterable[bytes]) -> RecordFrame:
    times = {timestamp_of(body).encode(), *later_times}
    since, until = min(times).decode(), max(times).decode()
    sha256 = hashlib.sha256(stored.content).hexdigest()
    return RecordFrame(*stored, IndexEntry(since, until, sha256))


def with_frames(header: Header, frames: Sequence[RecordFrame]) -> Header:
    """The header of the compressed segment whose body `frames` are, else as `header`."""
    return msgspec.structs.replace(
        header,
        frames=tuple(each.frame for each in frames),
        index=tuple(each.entry for each in frames),
    )


def encode_compressed_header(header: Header) -> bytes:
    """The frame of the header's line. Its `frames` are those that will be written behind it."""
    return encode_compressed_line(encode_header(header))


def encode_compressed_line(line: bytes) -> bytes:
    """The frame of a header's line, which has its newline."""
    return _compressor(_HEADER_LEVEL).compress(line)


def split_header(start: bytes, path: str, bytes_max: int) -> tuple[bytes, int] | None:
    """The header line of a file that begins with `start`, and the length of its frame.

    None if `start` does not hold all of the frame. Raises `DamagedSegment` for `path` if it
    is no frame, or says that it holds more than `bytes_max`.
    """
    try:
        length = frame_length(start)
        if length is None:
            return None
        content_bytes = zstandard.frame_content_size(start)
        if not 0 < content_bytes <= bytes_max:
            raise DamagedSegment(path, "its first frame has not the size of a segment header")
        line = zstandard.ZstdDecompressor().decompress(start[:length])
    except zstandard.ZstdError as error:
        raise DamagedSegment(path, f"its first frame is no segment header: {error}") from None
    if line.find(b"\n") != len(line) - 1:
        raise DamagedSegment(path, "its first frame is not one header line")
    return line, length


def decompress_frames(header: Header, stored: bytes, wanted: range, path: str) -> bytes:
    """What the `wanted` of the header's frames hold, which are neighbours; `stored` is they.

    Takes the memory that the header says and no more. Raises `DamagedSegment` for `path`. Where
    the header has no index, what is given is still to be held against the hash of the body.
    """
    assert header.frames is not UNSET
    frames = header.frames[wanted.start : wanted.stop]
    expected_bytes = sum(frame.stored_bytes for frame in frames)
    if len(stored) != expected_bytes:
        raise DamagedSegment(
            path, f"its frames have {len(stored)} bytes, its header says {expected_bytes}"
        )
    decompressor = zstandard.ZstdDecompressor()
    bodies = []
    rest = memoryview(stored)
    first = header.first + sum(frame.count for frame in header.frames[: wanted.start])
    for at, frame in zip(wanted, frames, strict=True):
        of = f"the frame of records {first} to {first + frame.count - 1}"
        first += frame.count
        content, rest = rest[: frame.stored_bytes], rest[frame.stored_bytes :]
        if (
            header.index is not UNSET
            and hashlib.sha256(content).hexdigest() != header.index[at].sha256
        ):
            raise DamagedSegment(path, f"the sha256 of {of} is not the one in its header")
        try:
            # Looked at first, for as much as the frame says is allocated for it.
            if zstandard.frame_content_size(content) != frame.body_bytes:
                raise DamagedSegment(path, f"{of} has not the size that its header says")
            bodies.append(decompressor.decompress(content, allow_extra_data=False))
        except zstandard.ZstdError as error:
            raise DamagedSegment(path, f"{of} cannot be decompressed: {error}") from None
    return bodies[0] if len(bodies) == 1 else b"".join(bodies)


def decompress_what_can_be(content: bytes | memoryview, bytes_max: int) -> bytes:
    """The beginning of what one frame holds, up to where it is damaged; at most `bytes_max`.

    What is given matches the frame's checksum only where the frame is whole.
    """
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    found = bytearray()
    try:
        # Little by little: of what fails nothing is given out, and a byte may become many.
        for start in range(0, len(content), _SALVAGE_BYTES):
            found += decompressor.decompress(content[start : start + _SALVAGE_BYTES])
            if decompressor.eof or len(found) > bytes_max:
                break
    except zstandard.ZstdError:
        pass
    return bytes(found[:bytes_max])


def frame_starts(content: bytes) -> Iterator[int]:
    """Where in `content` something begins that looks like a frame."""
    start = content.find(zstandard.FRAME_HEADER)
    while start >= 0:
        yield start
        start = content.find(zstandard.FRAME_HEADER, start + 1)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    # For many frames, one after the other: making one takes as long as compressing 100 KiB.
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


def _frame_bodies(chunks: Iterable[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for part in chain.from_iterable(map(_parts, chunks)):
        gathered.append(part)
        size += len(part)
        if size >= FRAME_BYTES:
            yield gathered[0] if len(gathered) == 1 else b"".join(gathered)
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)


def _parts(chunk: bytes) -> Iterator[bytes]:
    """A chunk, in parts that end with the first line at or behind `FRAME_BYTES`."""
    start = 0
    while len(chunk) - start > FRAME_BYTES:
        stop = chunk.index(b"\n", start + FRAME_BYTES - 1) + 1
        yield chunk[start:stop]
        start = stop
    yield chunk[start:] if start else chunk


def frame_length(start: bytes | memoryview) -> int | None:
    """How many bytes of `start` are its first frame (RFC 8878, 3.1.1), if it holds all of it.

    Read off the blocks' headers: a decompressor told to find the end would give out, and
    allocate, whatever a damaged frame holds. Raises `ZstdError` if it begins with no frame.
    """
    has_checksum = zstandard.get_frame_parameters(start).has_checksum
    place = zstandard.frame_header_size(start)
    is_last = False
    while not is_last:
        block = int.from_bytes(start[place : place + _BLOCK_HEADER_BYTES], "little")
        is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        place += _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else size)
        if place > len(start):
            return None
    place += _CHECKSUM_BYTES * has_checksum
    return place if place <= len(start) else None
