"""Compressed segments for tests, made of plain ones."""

from pathlib import Path

import msgspec

from logengine.compression import compress_body, encode_compressed_header
from logengine.segment import decode_header, segment_name


def compressed(content: bytes) -> bytes:
    """The compressed segment that `zstdcat` makes a plain one of, but for the header's frames."""
    line, _, body = content.partition(b"\n")
    frames = list(compress_body([body], 1))
    header = msgspec.structs.replace(
        decode_header(line, "plain"), frames=tuple(frame.frame for frame in frames)
    )
    return encode_compressed_header(header) + b"".join(frame.content for frame in frames)


def compress_file(path: Path) -> Path:
    """Puts the compressed segment in the place of the plain one."""
    target = path.with_name(segment_name(int(path.name[:20]), compressed=True))
    target.write_bytes(compressed(path.read_bytes()))
    path.unlink()
    return target
