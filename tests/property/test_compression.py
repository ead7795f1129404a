"""A body that is compressed in whatever chunks comes back, whole records in each frame."""

import hashlib
from collections.abc import Iterator
from unittest.mock import patch

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logengine.format import compression
from logengine.format.compression import compress_lines, decompress_frames
from logengine.format.segment import FORMAT_VERSION, Header

lines = st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"") + b"\n"))
TIME = "2026-11-23T20:00:00.000001Z"


def cut(parts: list[bytes], sizes: list[int]) -> Iterator[bytes]:
    for size in [*sizes, len(parts)]:
        yield b"".join(parts[:size])
        parts = parts[size:]


@given(lines, st.lists(st.integers(0, 9)), st.integers(1, 60))
def test_a_body_comes_back_however_it_was_cut(
    parts: list[bytes], sizes: list[int], frame_bytes: int
) -> None:
    body = b"".join(parts)
    with patch.object(compression, "FRAME_BYTES", frame_bytes):
        frames = list(compress_lines(cut(parts, sizes), 1))
    header = Header(
        version=FORMAT_VERSION,
        stream="app",
        first=1,
        count=len(parts),
        bytes=len(body),
        since=TIME,
        until=TIME,
        latest=TIME,
        sha256=hashlib.sha256(body).hexdigest(),
        frames=tuple(frame.frame for frame in frames),
    )
    stored = b"".join(frame.content for frame in frames)
    assert decompress_frames(header, stored, range(len(frames)), "f") == body
    assert sum(frame.frame.count for frame in frames) == len(parts)
    for content, frame in frames:
        part = zstandard.ZstdDecompressor().decompress(content)
        assert part.endswith(b"\n")
        assert (frame.body_bytes, frame.count) == (len(part), part.count(b"\n"))
    assert all(frame.frame.body_bytes >= frame_bytes for frame in frames[:-1])
