"""Frame times: from when to when the records of each frame of a sealed segment are.

The times are those of `own_time`. `docs/format.md` is the specification. Bytes in, values out.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from logengine.errors import DamagedSearchFilters
from logengine.format.timestamp import is_timestamp

FRAME_TIMES_VERSION = 1
_DIGEST_BYTES = hashlib.sha256().digest_size

# The least and the greatest time in a frame.
Bounds = tuple[str, str]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The only line of a file of frame times."""

    segment: str
    frames: tuple[Bounds, ...]
    version: int = msgspec.field(name="_times")


class _Version(msgspec.Struct, frozen=True):
    version: int = msgspec.field(name="_times")


def encode_frame_times(segment: str, frames: Sequence[Bounds]) -> bytes:
    """Returns the file with the times of all frames of a segment.

    `segment` is the `header_sha256` of the segment.
    """
    line = {"_times": FRAME_TIMES_VERSION, "segment": segment, "frames": frames}
    content = msgspec.json.encode(line) + b"\n"
    return content + hashlib.sha256(content).digest()


def decode_frame_times(content: bytes, segment: str, path: str) -> Sequence[Bounds] | None:
    """Returns the times in a file at `path`; None if they are not of `segment`.

    `segment` is the `header_sha256` of the segment. Also returns None for a version that this
    reader does not know. Raises `DamagedSearchFilters`.
    """
    checked, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(checked).digest() != digest:
        raise DamagedSearchFilters(path, "its sha256 is not the one at its end")
    try:
        if _version_decoder.decode(checked).version != FRAME_TIMES_VERSION:
            return None
        line = _decoder.decode(checked)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedSearchFilters(path, f"its first line is not as expected: {error}") from None
    if line.segment != segment:
        return None
    for least, greatest in line.frames:
        if not (is_timestamp(least) and is_timestamp(greatest) and least <= greatest):
            raise DamagedSearchFilters(path, "its times are impossible")
    return line.frames


_version_decoder = msgspec.json.Decoder(_Version)
_decoder = msgspec.json.Decoder(_Line)
