"""Salvages whole lines of a damaged segment: bytes in, records and their numbers out. No files.

A line is whole if it is a valid record. Only a hash can prove that it is the record that was
stored, and the hash of the body does not match. If the header is whole and has hashes of frames,
the lines of a frame that matches its hash are proven. A line's number is sure if nothing broken
lies between it and a place whose number is known; otherwise it is a guess.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from msgspec import UNSET
from zstandard import ZstdError

from logengine.format.block import runs
from logengine.format.compression import decompress_what_can_be, frame_length, frame_starts
from logengine.format.json_object import OPENING, fault_of_line, stored_fields
from logengine.format.segment import FRAME_BODY_BYTES_MAX, HEADER_START, Header
from logengine.format.timestamp import TIMESTAMP_CHARACTERS

# Limit for a frame whose size no header gives. Writers put slightly more than 1 MiB in a frame.
_FRAME_BYTES_MAX = 64 * 1024 * 1024
# Limit for all frames of a file whose header is damaged: as much as a segment usually has, at most.
_FRAMES_BYTES_MAX = 256 * 1024 * 1024


# A record is no shorter than its first key and the time.
_LONG_ENOUGH = re.compile(rb"[^\n]{%d,}" % (len(OPENING) + TIMESTAMP_CHARACTERS))


class SalvagedLine(NamedTuple):
    """A whole line without its newline, and its number; `is_proven`: it is as it was stored."""

    seq: int
    is_sure: bool
    line: bytes
    is_proven: bool = False


class Salvage(NamedTuple):
    """The whole lines, in order, and the number of pieces that are not whole lines."""

    lines: list[SalvagedLine]
    broken: int


class _Part(NamedTuple):
    """Part of a body: `records` records (None if unknown) from number `first` on.

    `is_placed`: its first line is the one that was stored there. `is_complete`: so is its last
    one. `is_proven`: so are all.
    """

    body: bytes
    first: int
    records: int | None
    is_placed: bool
    is_complete: bool
    is_proven: bool = False


def salvage(content: bytes, first: int, header: Header | None, *, compressed: bool) -> Salvage:
    """Returns the whole lines in a file's `content`; its name gives `first` and `compressed`.

    `header` is None if that is damaged too. Uses memory for the body twice.
    """
    parts: Iterable[_Part]
    if compressed:
        parts = _parts_of_frames(content, first, header)
    else:
        parts = [_part_of_plain(content, first, header)]
    lines: list[SalvagedLine] = []
    broken = 0
    for part in parts:
        found = _salvage_part(part)
        lines += found.lines
        broken += found.broken
    return Salvage(lines, broken)


def encode_salvage(found: Salvage, stream: str) -> Iterator[bytes]:
    """Yields the lines as NDJSON, with `_seq` if the number is sure, else `_seq_guessed`."""
    for each in found.lines:
        key = b"_seq" if each.is_sure else b"_seq_guessed"
        yield b'{"_stream":"%s","%s":%d,%s\n' % (stream.encode(), key, each.seq, each.line[1:])


class _Run(msgspec.Struct, frozen=True):
    first: int
    last: int


class SalvageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a damaged file, for later analysis.

    `last` is from its header, None if that was damaged too. `broken` is the number of pieces that
    are not whole lines. `sure` and `guessed` are the numbers of the salvaged lines, `proven` those
    of lines that are as they were stored.
    """

    stream: str
    file: str
    kept_as: str
    when: str
    why: str
    first: int
    last: int | None
    salvaged: int
    broken: int
    sure: list[_Run]
    guessed: list[_Run]
    proven: list[_Run]

    @classmethod
    def of(
        cls,
        found: Salvage,
        *,
        stream: str,
        file: str,
        kept_as: str,
        when: str,
        why: str,
        first: int,
        header: Header | None,
    ) -> "SalvageReport":
        """Returns the report on `file`, which is kept as `kept_as`."""
        return cls(
            stream=stream,
            file=file,
            kept_as=kept_as,
            when=when,
            why=why,
            first=first,
            last=header.last if header else None,
            salvaged=len(found.lines),
            broken=found.broken,
            sure=_ranges(line.seq for line in found.lines if line.is_sure),
            guessed=_ranges(line.seq for line in found.lines if not line.is_sure),
            proven=_ranges(line.seq for line in found.lines if line.is_proven),
        )

    def encode(self) -> bytes:
        """Returns the report as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def _part_of_plain(content: bytes, first: int, header: Header | None) -> _Part:
    line, newline, body = content.partition(b"\n")
    if header is not None:
        return _Part(body, first, header.count, bool(newline), len(body) == header.bytes)
    if newline and not fault_of_line(line):
        body = content  # the header line is missing
    return _Part(body, first, None, is_placed=_is_header_line(line), is_complete=False)


def _is_header_line(line: bytes) -> bool:
    """Returns whether a damaged header line is still recognisable, and ends where it should."""
    return line.startswith(HEADER_START) and stored_fields(line) is not None


def _parts_of_frames(content: bytes, first: int, header: Header | None) -> Iterator[_Part]:
    place = _end_of_header(content)
    if header is None or header.frames is UNSET or place is None:
        bodies = [body for body in _bodies_in(content) if not body.startswith(HEADER_START)]
        # A body may end within a line.
        yield _Part(b"\n".join(bodies), first, None, is_placed=False, is_complete=False)
        return
    for at, frame in enumerate(header.frames):
        stored = content[place : place + frame.stored_bytes]
        body = decompress_what_can_be(stored, frame.body_bytes)
        is_proven = (
            header.index is not UNSET
            and hashlib.sha256(stored).hexdigest() == header.index[at].sha256
        )
        yield _Part(body, first, frame.count, True, len(body) == frame.body_bytes, is_proven)
        place += frame.stored_bytes
        first += frame.count


def _end_of_header(content: bytes) -> int | None:
    try:
        return frame_length(content)
    except ZstdError:
        return None


def _bodies_in(content: bytes) -> Iterator[bytes]:
    """Yields the content of the frames that can be found without the header's table of them."""
    view = memoryview(content)
    place = 0
    left_bytes = _FRAMES_BYTES_MAX
    for start in frame_starts(content):
        if start < place:
            continue
        if left_bytes <= 0:
            return
        try:
            length = frame_length(view[start:])
        except ZstdError:
            continue
        stop = len(content) if length is None else start + length
        body = decompress_what_can_be(view[start:stop], min(_FRAME_BYTES_MAX, left_bytes))
        left_bytes -= len(body)
        if body:
            yield body
        # Its length may be what is damaged, so the search for the next frame continues inside it.
        place = start + 1 if length is None or not body.endswith(b"\n") else stop


def _salvage_part(part: _Part) -> Salvage:
    whole = list(_whole_lines(part.body))
    count = part.body.count(b"\n") + (not part.body.endswith(b"\n") and part.body != b"")
    # Before the first piece that is not a whole line, and after the last, nothing is broken.
    front = next((at for at, (index, _) in enumerate(whole) if index != at), len(whole))
    back = next(
        (at for at, (index, _) in enumerate(reversed(whole)) if index != count - 1 - at), len(whole)
    )
    sure_before = front if part.is_placed else 0
    sure_behind = count
    last = part.first + count - 1
    if part.records is not None:
        last = part.first + part.records - 1
        if part.is_complete:
            sure_behind = count - back
    found = []
    for index, line in whole:
        if index < sure_before:
            found.append(SalvagedLine(part.first + index, True, line, part.is_proven))
        elif index >= sure_behind:
            found.append(SalvagedLine(last - (count - 1 - index), True, line))
        else:
            found.append(SalvagedLine(min(part.first + index, last), False, line))
    return Salvage(found, count - len(whole))


def _whole_lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are records, each with its index among all lines.

    Lines that are too short cost nothing: a small frame may contain millions of them.
    """
    index = counted = 0
    for match in _LONG_ENOUGH.finditer(body):
        index += body.count(b"\n", counted, match.start())
        counted = match.start()
        line = match.group()
        if len(line) <= FRAME_BODY_BYTES_MAX and fault_of_line(line) is None:
            yield index, line


def _ranges(seqs: Iterable[int]) -> list[_Run]:
    return [_Run(first, last) for first, last in runs(seqs)]
