"""Replaces records by tombstones: bytes in, bytes out. No files, no clock.

    {"_ts":"2026-11-23T20:00:00.000123Z","_erased":{"when":"…","by":"ann","why":"a…","uid":1000}}

A tombstone keeps the number and the time of the record, so everything that depends on those
remains correct. Frames of a compressed segment without tombstones stay as they are.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from logengine.format.block import Block
from logengine.format.compression import (
    RecordFrame,
    compress_body,
    encode_compressed_header,
    record_frame,
    with_frames,
)
from logengine.format.json_object import without_controls
from logengine.format.record import TIMESTAMP_START
from logengine.format.segment import Erased, Frame, Header, Sign, body_sha256, encode_header, signed
from logengine.format.timestamp import TIMESTAMP_CHARACTERS

_TIMESTAMP_STOP = TIMESTAMP_START + TIMESTAMP_CHARACTERS + 1  # with its closing quote
_OPENING = b',"_erased":'
_LEVEL = 3


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tombstone says: when the record was erased, by whom, and why, if given.

    `uid` is the real uid of the process that erased it, as the kernel has it, and `by` its name.
    """

    when: str
    by: str
    why: str | UnsetType = UNSET
    uid: int | UnsetType = UNSET


def is_tombstone(line: bytes) -> bool:
    """Returns whether a stored line is the tombstone of an erased record."""
    # No sender can set this key: it is one of the engine's.
    return line.startswith(_OPENING, _TIMESTAMP_STOP)


def tombstone(line: bytes, mark: Mark) -> bytes:
    """Returns the tombstone that replaces a stored line; both without a newline."""
    told = without_controls(msgspec.json.encode(mark))
    return b"%s%s%s}" % (line[:_TIMESTAMP_STOP], _OPENING, told)


def to_be_erased(wanted: Iterable[Block]) -> list[int]:
    """Returns the numbers of the records in `wanted`, except those erased earlier."""
    return [
        record.seq
        for block in wanted
        for record in block.records()
        if not is_tombstone(record.line)
    ]


def erase(
    header: Header,
    body: bytes,
    stored: bytes,
    seqs: Collection[int],
    mark: Mark,
    original: str,
    sign: Sign | None = None,
) -> list[bytes]:
    """Returns the new bytes of a segment, in pieces, with tombstones at `seqs`.

    `stored` are the bytes after the header in the file; `original` is its current
    `header_sha256`. The old signature is dropped because it covers content that is gone; with
    `sign`, a seal gets a new one.
    """
    lines = Block(header.stream, header.first, header.count, body).lines()
    erased = set(seqs)
    lines = [
        tombstone(line, mark) if seq in erased else line
        for seq, line in enumerate(lines, header.first)
    ]
    new_body = _joined(lines)
    header = msgspec.structs.replace(header, bytes=len(new_body), sha256=body_sha256(new_body))
    if header.frames is UNSET:
        return [encode_header(header), new_body]
    before = header.erased
    frames = _frames(header.first, header.frames, lines, stored, erased)
    header = msgspec.structs.replace(
        with_frames(header, frames),
        signature=UNSET,
        erased=Erased(original=original, count=len(erased))
        if before is UNSET
        else Erased(original=before.original, count=before.count + len(erased)),
    )
    if sign is not None and header.is_sealed:
        header = signed(header, sign)
    return [encode_compressed_header(header), *(frame.content for frame in frames)]


def _frames(
    first: int, frames: Sequence[Frame], lines: Sequence[bytes], stored: bytes, erased: set[int]
) -> list[RecordFrame]:
    new_frames: list[RecordFrame] = []
    index = place = 0
    for frame in frames:
        stop = index + frame.count
        body = _joined(lines[index:stop])
        if erased.isdisjoint(range(first + index, first + stop)):
            content = stored[place : place + frame.stored_bytes]
            new_frames.append(record_frame(content, frame, body))
        else:
            new_frames += compress_body([body], _LEVEL)
        index, place = stop, place + frame.stored_bytes
    return new_frames


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
