"""Compressed segments: zstd frames that `zstdcat` turns into a plain segment.

    00000000000000000001.ndjson.zst      the name of a plain segment plus `.zst`
    frame: {"_segment":1,…,"frames":…}   the first frame contains the header line
    frame: {"_ts":"…",…} …               every other contains some of the records, as whole lines

Each frame states the size of its content and has a checksum of it. The header gives each frame's
length, times and hash, so a frame can be read and trusted without the others. Bytes in, values
out; compressing and decompressing release the GIL.
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

# Large enough to compress well, small enough to be read alone.
FRAME_BYTES = 1024 * 1024

# A frame is compressed in pieces of this size: other work waits a third of a millisecond for a
# piece, and three milliseconds for a whole frame.
_PIECE_BYTES = 128 * 1024
_HEADER_LEVEL = 3
_CHECKSUM_BYTES = 4
_BLOCK_HEADER_BYTES = 3
_RLE_BLOCK = 1
_SALVAGE_BYTES = 256
# Matches the time of every line of a body except the first. With `^` instead of the newline it
# would take ten times as long, and it holds the GIL.
_TIMESTAMPS = re.compile(rb"\n.{%d}(.{%d})" % (TIMESTAMP_START, TIMESTAMP_CHARACTERS))
# A match that begins at the last byte of a piece ends this far after the piece.
_LOOK_AHEAD = TIMESTAMP_START + TIMESTAMP_CHARACTERS


class StoredFrame(NamedTuple):
    """The bytes of a frame, and its entry in the header's `frames`."""

    content: bytes
    frame: Frame


class RecordFrame(NamedTuple):
    """A frame of records: a `StoredFrame` plus its entry in the header's `index`."""

    content: bytes
    frame: Frame
    entry: IndexEntry


def _free(_count: int) -> None:
    """Sets no pace: compresses everything without a pause."""


def compress_lines(chunks: Iterable[bytes], level: int) -> Iterator[StoredFrame]:
    """Yields the frames of `chunks`, each of which consists of whole lines with their newlines.

    Each frame except the last contains at least `FRAME_BYTES`. A chunk of up to that size is never
    split; a longer one is split at the first line end at or after that many bytes. Each frame is
    compressed on demand.
    """
    compressor = _compressor(level)
    for body in _frame_bodies(chunks):
        yield _stored(compressor.compress(body), body)


def compress_body(
    chunks: Iterable[bytes], level: int, pace: Callable[[int], None] = _free
) -> Iterator[RecordFrame]:
    """Yields the frames of a body, cut as `compress_lines` cuts them.

    `pace` is called with the number of bytes after every piece of a frame, and may sleep.
    """
    compressor = _compressor(level)
    for body in _frame_bodies(chunks):
        # The size is given in advance because the frame's own header contains it.
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
    """Returns the frame whose decompressed content is `body`, with its entry for the index."""
    return _with_entry(StoredFrame(content, frame), body, _TIMESTAMPS.findall(body))


def _stored(content: bytes, body: bytes) -> StoredFrame:
    return StoredFrame(content, Frame(len(content), len(body), count_newlines(body)))


def _with_entry(stored: StoredFrame, body: bytes, later_times: Iterable[bytes]) -> RecordFrame:
    times = {timestamp_of(body).encode(), *later_times}
    since, until = min(times).decode(), max(times).decode()
    sha256 = hashlib.sha256(stored.content).hexdigest()
    return RecordFrame(*stored, IndexEntry(since, until, sha256))


def with_frames(header: Header, frames: Sequence[RecordFrame]) -> Header:
    """Returns `header` with the `frames` and `index` of a compressed body."""
    return msgspec.structs.replace(
        header,
        frames=tuple(each.frame for each in frames),
        index=tuple(each.entry for each in frames),
    )


def encode_compressed_header(header: Header) -> bytes:
    """Returns the frame of the header's line. `header.frames` are the frames written after it."""
    return encode_compressed_line(encode_header(header))


def encode_compressed_line(line: bytes) -> bytes:
    """Returns the frame of a header's line; `line` includes its newline."""
    return _compressor(_HEADER_LEVEL).compress(line)


def split_header(start: bytes, path: str, bytes_max: int) -> tuple[bytes, int] | None:
    """Returns the header line of a file that begins with `start`, and the length of its frame.

    Returns None if `start` does not contain the whole frame. Raises `DamagedSegment` for `path`
    if it is not a frame, or its stated size is more than `bytes_max`.
    """
    try:
        length = frame_length(start)
        if length is None:
            return None
        content_bytes = zstandard.frame_content_size(start)
        if not 0 < content_bytes <= bytes_max:
            raise DamagedSegment(path, "its first frame does not have the size of a segment header")
        line = zstandard.ZstdDecompressor().decompress(start[:length])
    except zstandard.ZstdError as error:
        raise DamagedSegment(path, f"its first frame is not a segment header: {error}") from None
    if line.find(b"\n") != len(line) - 1:
        raise DamagedSegment(path, "its first frame is not one header line")
    return line, length


def decompress_frames(header: Header, stored: bytes, wanted: range, path: str) -> bytes:
    """Returns the content of the `wanted` frames, which are neighbours; `stored` is their bytes.

    Uses no more memory than the header states. Raises `DamagedSegment` for `path`. If the header
    has no index, the caller must still check the result against the hash of the body.
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
            # Checked first, because zstd allocates as much as the frame states.
            if zstandard.frame_content_size(content) != frame.body_bytes:
                raise DamagedSegment(path, f"{of} does not have the size given in its header")
            bodies.append(decompressor.decompress(content, allow_extra_data=False))
        except zstandard.ZstdError as error:
            raise DamagedSegment(path, f"{of} cannot be decompressed: {error}") from None
    return bodies[0] if len(bodies) == 1 else b"".join(bodies)


def decompress_what_can_be(content: bytes | memoryview, bytes_max: int) -> bytes:
    """Returns the content of one frame up to where it is damaged, at most `bytes_max`.

    The result is checked against the frame's checksum only if the frame is whole.
    """
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    found = bytearray()
    try:
        # In small steps: a call that fails returns nothing, and a byte may expand to many.
        for start in range(0, len(content), _SALVAGE_BYTES):
            found += decompressor.decompress(content[start : start + _SALVAGE_BYTES])
            if decompressor.eof or len(found) > bytes_max:
                break
    except zstandard.ZstdError:
        pass
    return bytes(found[:bytes_max])


def frame_starts(content: bytes) -> Iterator[int]:
    """Yields the offsets in `content` at which something looks like the start of a frame."""
    start = content.find(zstandard.FRAME_HEADER)
    while start >= 0:
        yield start
        start = content.find(zstandard.FRAME_HEADER, start + 1)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    # Reused for many frames: creating one takes as long as compressing 100 KiB.
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
    """Yields a chunk in parts, each cut at the first line end at or after `FRAME_BYTES`."""
    start = 0
    while len(chunk) - start > FRAME_BYTES:
        stop = chunk.index(b"\n", start + FRAME_BYTES - 1) + 1
        yield chunk[start:stop]
        start = stop
    yield chunk[start:] if start else chunk


def frame_length(start: bytes | memoryview) -> int | None:
    """Returns the length of the first frame in `start` (RFC 8878, 3.1.1); None if it is cut off.

    Reads the block headers: a decompressor asked for the end would allocate and return whatever
    a damaged frame contains. Raises `ZstdError` if `start` does not begin with a frame.
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
