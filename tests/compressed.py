"""Compressed and sealed segments for tests, made of plain ones."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import UNSET

from logengine.format.compression import compress_body, encode_compressed_header, with_frames
from logengine.format.segment import (
    Header,
    decode_header,
    encode_header,
    header_sha256,
    segment_name,
)
from logengine.upkeep.compaction_plan import earlier_seals


def compressed(content: bytes) -> bytes:
    """The compressed segment that `zstdcat` makes a plain one of, but for the header's frames."""
    return _compressed(content)[1]


def _compressed(content: bytes, **seal: object) -> tuple[Header, bytes]:
    line, _, body = content.partition(b"\n")
    # Line by line, so that a smaller FRAME_BYTES makes more frames.
    frames = list(compress_body([each + b"\n" for each in body.split(b"\n")[:-1]], 1))
    header = with_frames(decode_header(line, "plain"), frames)
    header = msgspec.structs.replace(header, **seal)
    content = encode_compressed_header(header) + b"".join(frame.content for frame in frames)
    return header, content


def sealed(files: Mapping[int, bytes]) -> dict[int, bytes]:
    """A stream of plain segments, content by first number, as a chain of seals."""
    headers: dict[int, Header] = {}
    chain = {}
    before: Header | None = None
    prev = ""
    for first, content in sorted(files.items()):
        seal: dict[str, object] = {"prev": prev}
        if before is not None:
            earlier = before.earlier
            farther = None if earlier is UNSET else headers[earlier.first]
            seal["earlier"] = earlier_seals(before, farther)
        before, chain[first] = _compressed(content, **seal)
        headers[first] = before
        prev = header_sha256(encode_header(before))
    return chain


def compress_file(path: Path) -> Path:
    """Puts the compressed segment in the place of the plain one."""
    target = path.with_name(segment_name(int(path.name[:20]), compressed=True))
    target.write_bytes(compressed(path.read_bytes()))
    path.unlink()
    return target
