"""Records replaced by tombstones: bytes in, bytes out. No files, no clock.

    {"_ts":"2026-11-23T20:00:00.000123Z","_erased":{"when":"…","by":"ann","why":"a password"}}

A tombstone has the number and the time of the record that was there, so that everything
which goes by those still holds. Frames of a compressed segment that hold none stay as they are.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from logengine.block import Block
from logengine.compression import compress_body, encode_compressed_header
from logengine.record import TIMESTAMP_START
from logengine.segment import Erased, Frame, Header, body_sha256, encode_header
from logengine.timestamp import TIMESTAMP_CHARACTERS

_TIMESTAMP_STOP = TIMESTAMP_START + TIMESTAMP_CHARACTERS + 1  # with its closing quote
_OPENING = b',"_erased":'
_LEVEL = 3


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tombstone says: when it was set, by whom, and why, if that was said."""

    when: str
    by: str
    why: str | UnsetType = UNSET


def is_tombstone(line: bytes) -> bool:
    """Whether a stored line is what is left of an erased record."""
    # No sender's key can be this one: it is among those of the engine.
    return line.startswith(_OPENING, _TIMESTAMP_STOP)


def tombstone(line: bytes, mark: Mark) -> bytes:
    """What takes the place of a stored line, which is without its newline."""
    return b"%s%s%s}" % (line[:_TIMESTAMP_STOP], _OPENING, msgspec.json.encode(mark))


def to_be_erased(wanted: Iterable[Block]) -> list[int]:
    """The numbers of the records of some blocks, but of those that were erased before."""
    return [
        record.seq
        for block in wanted
        for record in block.records()
        if not is_tombstone(record.line)
    ]


def erase(
    header: Header, body: bytes, stored: bytes, seqs: Collection[int], mark: Mark, original: str
) -> list[bytes]:
    """The bytes of a segment anew, in pieces, with tombstones at `seqs`.

    `stored` is what is behind the header in the file; `original` is the `header_sha256` that
    it has now.
    """
    lines = Block(header.stream, header.first, header.count, body).lines()
    erased = set(seqs)
    lines = [
        tombstone(line, mark) if seq in erased else line
        for seq, line in enumerate(lines, header.first)
    ]
    new_body = b"".join(line + b"\n" for line in lines)
    header = msgspec.structs.replace(header, bytes=len(new_body), sha256=body_sha256(new_body))
    if header.frames is UNSET:
        return [encode_header(header), new_body]
    before = header.erased
    contents, frames = _frames(header.first, header.frames, lines, stored, erased)
    header = msgspec.structs.replace(
        header,
        frames=tuple(frames),
        signature=UNSET,  # it was of what is no more
        erased=Erased(original=original, count=len(erased))
        if before is UNSET
        else Erased(original=before.original, count=before.count + len(erased)),
    )
    return [encode_compressed_header(header), *contents]


def _frames(
    first: int, frames: Sequence[Frame], lines: Sequence[bytes], stored: bytes, erased: set[int]
) -> tuple[list[bytes], list[Frame]]:
    contents: list[bytes] = []
    new_frames: list[Frame] = []
    index = place = 0
    for frame in frames:
        stop = index + frame.count
        if erased.isdisjoint(range(first + index, first + stop)):
            contents.append(stored[place : place + frame.stored_bytes])
            new_frames.append(frame)
        else:
            for each in compress_body([line + b"\n" for line in lines[index:stop]], _LEVEL):
                contents.append(each.content)
                new_frames.append(each.frame)
        index, place = stop, place + frame.stored_bytes
    return contents, new_frames
