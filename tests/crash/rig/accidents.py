"""What disks and people do to the files of a stream: damage of every kind, drawn.

Keeps account of which records can still be proven, by comparing bytes with what was there
before: of a file that is whole all, of a compressed one the frames that are untouched while the
header is. That is all that a repair may be asked for, and no less.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from logengine.disk.segment_file import list_segments, read_provable
from logengine.format.compression import encode_compressed_header, frame_length
from logengine.format.segment import (
    Header,
    body_sha256,
    encode_header,
    segment_name,
    timestamp_of,
)

_FAR = "2099-01-01T00:00:00.000000Z"


class Accidents:
    """Lets accidents happen to the stream in `directory`, whose records are `lines`, by seq."""

    def __init__(self, directory: Path, source: random.Random, lines: dict[int, bytes]) -> None:
        self._directory = directory
        self._source = source
        self._lines = lines
        self._proven = {path: self._seqs_of(path) for path in self._paths()}
        self._ranges = {path: self._range_of(path) for path in self._paths()}
        self.touched: set[Path] = set()
        self._misnamed: dict[Path, Path] = {}  # files, and the names that are theirs
        # The newest one that is gone, or has another number, is what nobody can know of.
        self._newest = list_segments(directory)[-1]

    def happen(self) -> None:
        """One accident, if there is something left for it to happen to."""
        paths = [path for path in self._paths() if path not in self.touched]
        if paths:
            path = self._source.choice(paths)
            self._source.choice(self._kinds())(path)

    def provable(self) -> set[int]:
        """The seqs of the records that some file proves."""
        for misnamed, own in self._misnamed.items():
            # Only where its own name is free it can have it.
            if own.exists():
                self._proven[misnamed] = set()
        there = [seqs for path, seqs in self._proven.items() if path.exists()]
        return set().union(*there) & self._lines.keys()

    def any_covered(self) -> bool:
        """Whether some file's numbers are also another's, as far as headers ever told."""
        seen: set[int] = set()
        for path, numbers in self._ranges.items():
            if path.exists():
                if not seen.isdisjoint(numbers):
                    return True
                seen.update(numbers)
        return False

    def _kinds(self) -> list[Callable[[Path], None]]:
        return [
            self._lose,
            self._lose,
            self._flip,
            self._flip,
            self._flip_behind_the_header,
            self._flip_behind_the_header,
            self._cut,
            self._zero,
            self._zero_a_block,
            self._empty,
            self._lengthen,
            self._be_of_another_stream,
            self._be_under_another_name,
            self._overlap_the_next,
            self._break_the_chain,
            self._be_unsealed,
            self._have_a_plain_twin,
            self._say_later,
            self._say_other_times,
            self._say_farther,
        ]

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("[0-9]*"))

    def _seqs_of(self, path: Path) -> set[int]:
        header, _ = self._header_and_body(path)
        return set(range(header.first, header.first + header.count))

    def _range_of(self, path: Path) -> range:
        header, _ = self._header_and_body(path)
        return range(header.first, header.last + 1)

    def _header_and_body(self, path: Path) -> tuple[Header, bytes]:
        found = read_provable(
            self._directory, int(path.name[:20]), compressed=path.suffix == ".zst"
        )
        assert found.header is not None
        return found.header, b"".join(frame.body for frame in found.frames)

    def _is_newest(self, path: Path) -> bool:
        return int(path.name[:20]) == self._newest

    def _lose(self, path: Path) -> None:
        if not self._is_newest(path):
            path.unlink()

    def _spoil(self, path: Path, content: bytes) -> None:
        """Puts other bytes in a file's place, and notes what of it they still prove."""
        before = path.read_bytes()
        if content == before:
            return
        header, _ = self._header_and_body(path)
        place = frame_length(before) if header.is_compressed else before.index(b"\n") + 1
        assert place is not None
        proven: set[int] = set()
        if content[:place] == before[:place]:
            seq = header.first
            frames = header.frames or ()
            for frame in frames:
                stop = place + frame.stored_bytes
                if content[place:stop] == before[place:stop] and header.index is not UNSET:
                    proven |= set(range(seq, seq + frame.count))
                place, seq = stop, seq + frame.count
            if content.startswith(before):
                proven = self._proven[path]
        path.write_bytes(content)
        self._proven[path] = proven
        self.touched.add(path)

    def _flip_from(self, path: Path, start: int) -> None:
        content = bytearray(path.read_bytes())
        if start < len(content):
            # All bits of it, for there are single ones that mean nothing to zstd.
            content[self._source.randrange(start, len(content))] ^= 0xFF
            self._spoil(path, bytes(content))

    def _flip(self, path: Path) -> None:
        self._flip_from(path, 0)

    def _flip_behind_the_header(self, path: Path) -> None:
        header, _ = self._header_and_body(path)
        self._flip_from(path, path.stat().st_size - header.stored_bytes)

    def _cut(self, path: Path) -> None:
        content = path.read_bytes()
        self._spoil(path, content[: self._source.randrange(len(content))])

    def _zero(self, path: Path) -> None:
        content = path.read_bytes()
        place = self._source.randrange(len(content))
        self._spoil(path, content[:place] + bytes(len(content) - place))

    def _zero_a_block(self, path: Path) -> None:
        content = path.read_bytes()
        start, stop = sorted(self._source.randrange(len(content) + 1) for _ in range(2))
        self._spoil(path, content[:start] + bytes(stop - start) + content[stop:])

    def _empty(self, path: Path) -> None:
        self._spoil(path, b"")

    def _lengthen(self, path: Path) -> None:
        content = path.read_bytes()
        self._spoil(path, content + self._source.choice([b"\0", b"{}\n", content]))

    def _rewrite(self, path: Path, **changes: Any) -> None:
        """Has the header of a file say something else, with a right hash; the records stay."""
        header, _ = self._header_and_body(path)
        content = path.read_bytes()[-header.stored_bytes :] if header.stored_bytes else b""
        header = msgspec.structs.replace(header, signature=UNSET, **changes)
        encode = encode_compressed_header if header.is_compressed else encode_header
        path.write_bytes(encode(header) + content)
        self.touched.add(path)

    def _be_of_another_stream(self, path: Path) -> None:
        self._rewrite(path, stream="web")
        self._proven[path] = set()

    def _be_under_another_name(self, path: Path) -> None:
        """Its name tells another number than its header."""
        first = int(path.name[:20]) + self._source.choice([-1, 1])
        other = path.with_name(path.name.replace(path.name[:20], segment_name(first)[:20]))
        if first < 1 or self._is_newest(path) or other.exists():
            return
        path.rename(other)
        self._misnamed[other] = path
        self.touched.add(other)
        self._proven[other], self._ranges[other] = self._proven[path], self._ranges[path]

    def _overlap_the_next(self, path: Path) -> None:
        """A file from somewhere else has some of its records, and of those behind it."""
        header, body = self._header_and_body(path)
        lines = body.split(b"\n")[:-1]
        seq = header.last + 1
        while seq in self._lines and len(lines) < header.count + self._source.randint(1, 3):
            lines.append(self._lines[seq])
            seq += 1
        if not lines or header.is_compressed or header.gap is not UNSET:
            return
        times = [timestamp_of(line) for line in lines]
        body = b"".join(line + b"\n" for line in lines)
        header = msgspec.structs.replace(
            header,
            count=len(lines),
            bytes=len(body),
            since=min(times),
            until=max(times),
            latest=max(header.latest, *times),
            sha256=body_sha256(body),
        )
        path.write_bytes(encode_header(header) + body)
        self.touched.add(path)
        self._proven[path] = set(range(header.first, seq))
        self._ranges[path] = range(header.first, seq)

    def _break_the_chain(self, path: Path) -> None:
        header, _ = self._header_and_body(path)
        if header.is_sealed and header.restored is UNSET:
            self._rewrite(path, prev="0" * 64, earlier=UNSET)

    def _be_unsealed(self, path: Path) -> None:
        """Somebody has decompressed it, and removed the compressed one."""
        if path.suffix == ".zst":
            self._have_a_plain_twin(path)
            path.unlink()

    def _have_a_plain_twin(self, path: Path) -> None:
        twin = path.with_suffix("")
        if path.suffix != ".zst" or twin.exists():
            return
        header, body = self._header_and_body(path)
        header = msgspec.structs.replace(
            header,
            frames=UNSET,
            index=UNSET,
            prev=UNSET,
            earlier=UNSET,
            signature=UNSET,
            restored=UNSET,
            erased=UNSET,
        )
        twin.write_bytes(encode_header(header) + body)
        self._proven[twin], self._ranges[twin] = self._proven[path], self._ranges[path]

    def _say_later(self, path: Path) -> None:
        self._rewrite(path, latest=_FAR)

    def _say_other_times(self, path: Path) -> None:
        header, _ = self._header_and_body(path)
        if header.index is UNSET:
            self._rewrite(path, since="2000-01-01T00:00:00.000000Z")

    def _say_farther(self, path: Path) -> None:
        """A producer is farther in it than in those behind it."""
        header, _ = self._header_and_body(path)
        if not self._is_newest(path):
            self._rewrite(path, producers={**header.producers, "p": 500, "q": 1})
