"""Compressed segments: what is written, and that any damage of it is told."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logengine.disk.segment_file import (
    DamagedRecords,
    list_segments,
    read_header,
    read_segment,
    read_wanted,
    size_of_segments,
)
from logengine.errors import DamagedSegment
from logengine.format import compression
from logengine.format.block import Block
from logengine.format.compression import (
    FRAME_BYTES,
    compress_body,
    compress_lines,
    encode_compressed_header,
    record_frame,
)
from logengine.format.segment import (
    Earlier,
    Frame,
    Header,
    IndexEntry,
    decode_header,
    encode_header,
    first_of_name,
    segment_name,
)
from logengine.upkeep.verify import verify_stream
from tests.compressed import compress_file
from tests.crash.rig.walker import fault_of
from tests.unit.test_segment import BODY, segment_file

COUNT = 30_000
LARGE = b"".join(BODY.replace(b'"a":1', b'"a":%d' % number) for number in range(COUNT // 2))

Change = Callable[[Header, list[bytes]], tuple[Header, list[bytes]]]


def compressed_file(directory: Path, body: bytes = LARGE, count: int = COUNT) -> Path:
    return compress_file(segment_file(directory, body, count))


def changed(path: Path, change: Change) -> None:
    """Writes the segment anew, its header and its frames changed, with right hashes."""
    header, _ = read_segment(path.parent, 1)
    content = path.read_bytes()
    assert header.frames != msgspec.UNSET
    frames = []
    place = len(content) - header.stored_bytes
    for frame in header.frames:
        frames.append(content[place : place + frame.stored_bytes])
        place += frame.stored_bytes
    header, frames = change(header, frames)
    path.write_bytes(encode_compressed_header(header) + b"".join(frames))


def with_frame(header: Header, frame: Frame) -> Header:
    """`header`, with another first frame."""
    assert header.frames != msgspec.UNSET
    return msgspec.structs.replace(header, frames=(frame, *header.frames[1:]))


def test_a_name_tells_the_kind_and_the_first_number() -> None:
    name = segment_name(81921, compressed=True)
    assert name == "00000000000000081921.ndjson.zst"
    assert first_of_name(name) == 81921
    for stranger in (f"{name}.zst", "00000000000000081921.zst", "00000000000000081921.ndjson.gz"):
        assert first_of_name(stranger) is None


def test_header_and_body_come_back(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    header, body = read_segment(tmp_path / "app", 1)
    assert body == LARGE
    assert (header.last, header.bytes, header.is_compressed) == (COUNT, len(LARGE), True)
    assert header.frames != msgspec.UNSET
    assert len(header.frames) == 2
    assert header.file_name == path.name
    assert read_header(tmp_path / "app", 1) == header
    assert list(verify_stream(tmp_path / "app")) == []
    assert size_of_segments(tmp_path / "app") == path.stat().st_size < len(LARGE) / 5


def test_a_segment_without_records_comes_back(tmp_path: Path) -> None:
    compressed_file(tmp_path / "app", b"", 0)
    header, body = read_segment(tmp_path / "app", 1)
    assert (header.frames, body) == ((), b"")


@pytest.mark.skipif(not shutil.which("zstdcat"), reason="there is no zstdcat here")
def test_zstdcat_makes_a_plain_segment_of_it(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    plain = subprocess.run(["zstdcat", path], check=True, capture_output=True).stdout
    line, _, body = plain.partition(b"\n")
    assert body == LARGE
    assert decode_header(line, "f") == read_header(tmp_path / "app", 1)
    assert fault_of(path, path.read_bytes()) is None


def test_a_plain_header_is_what_it_was(tmp_path: Path) -> None:
    segment_file(tmp_path / "app")
    assert b"frames" not in encode_header(read_header(tmp_path / "app", 1))


def test_frames_hold_whole_lines_and_about_a_mebibyte() -> None:
    chunks = [b"%d\n" % number * 30_000 for number in range(20)]
    frames = list(compress_lines(chunks, 1))
    bodies = [zstandard.ZstdDecompressor().decompress(frame.content) for frame in frames]
    assert b"".join(bodies) == b"".join(chunks)
    assert all(FRAME_BYTES <= len(body) < FRAME_BYTES + 90_001 for body in bodies[:-1])
    for body, (content, frame) in zip(bodies, frames, strict=True):
        assert body.endswith(b"\n")
        assert frame == Frame(len(content), len(body), body.count(b"\n"))
        assert zstandard.get_frame_parameters(content).has_checksum


def test_a_frame_is_compressed_in_pieces_that_others_can_come_between() -> None:
    body = b'{"_ts":"2026-11-23T20:00:00.000001Z"}\n' * 70_000
    spent: list[int] = []
    frames = list(compress_body([body], 1, spent.append))
    assert len(frames) == 3
    assert sum(spent) == len(body)
    assert max(spent) == 128 * 1024


@given(lines=st.lists(st.tuples(st.integers(0, 999_999), st.integers(0, 40)), min_size=1))
def test_the_times_of_a_frame_are_found_across_its_pieces(lines: list[tuple[int, int]]) -> None:
    times = [f"2026-11-23T20:00:00.{micros:06}Z" for micros, _ in lines]
    body = b"".join(
        b'{"_ts":"%s","a":"%s"}\n' % (time.encode(), b"x" * size)
        for time, (_, size) in zip(times, lines, strict=True)
    )
    for piece_bytes in (1, 7, 64):
        with patch.object(compression, "_PIECE_BYTES", piece_bytes):
            ((content, frame, entry),) = compress_body([body], 1)
        assert (entry.since, entry.until) == (min(times), max(times))
        assert record_frame(content, frame, body) == (content, frame, entry)


def test_a_long_chunk_is_cut_at_lines_and_a_long_line_is_not() -> None:
    long = b"x" * (3 * FRAME_BYTES) + b"\n"
    frames = list(compress_lines([b"short\n" * 400_000, long, b"short\n"], 1))
    assert [frame.frame.count for frame in frames] == [174_763, 174_763, 50_475, 1]
    assert frames[2].frame.body_bytes > 3 * FRAME_BYTES


def test_the_compressed_one_counts_where_both_are_there(tmp_path: Path) -> None:
    compressed_file(tmp_path / "app")
    left = segment_file(tmp_path / "app")  # with fewer records
    assert list_segments(tmp_path / "app") == [1]
    assert read_header(tmp_path / "app", 1).count == COUNT
    (note,) = verify_stream(tmp_path / "app")
    assert (note.path, note.harmless) == (str(left), True)


def test_a_segment_sealed_between_two_looks_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = segment_file(tmp_path / "app")
    looks = []
    open_file = os.open

    def seal_meanwhile(name: str, *arguments: Any, **options: Any) -> int:
        if first_of_name(os.path.basename(name)):
            looks.append(name)
            if len(looks) == 2:
                compress_file(plain)
        return open_file(name, *arguments, **options)

    monkeypatch.setattr(os, "open", seal_meanwhile)
    assert read_header(tmp_path / "app", 1).is_compressed


def test_a_segment_that_is_at_neither_name_is_not_found(tmp_path: Path) -> None:
    for read in (read_header, read_segment):
        with pytest.raises(FileNotFoundError):
            read(tmp_path, 1)


def test_no_cut_or_flip_goes_unseen(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app", BODY, 2)
    content = path.read_bytes()
    expected = read_segment(tmp_path / "app", 1)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedSegment, match=str(path)):
            read_segment(tmp_path / "app", 1)
        with pytest.raises(DamagedSegment, match=str(path)):
            read_header(tmp_path / "app", 1)
    unseen = 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert read_segment(tmp_path / "app", 1) == expected
        except DamagedSegment:
            continue
        unseen += 1  # zstd does not read it
    assert unseen < 30


def test_the_wrong_kind_under_a_name_is_damage(tmp_path: Path) -> None:
    plain = segment_file(tmp_path / "app")
    content = plain.read_bytes()
    path = compress_file(plain)
    path.write_bytes(content)
    with pytest.raises(DamagedSegment, match="not a segment header"):
        read_header(tmp_path / "app", 1)
    # A header that has no frames, in a frame.
    line = content.partition(b"\n")[0]
    path.write_bytes(encode_compressed_header(decode_header(line, "f")))
    with pytest.raises(DamagedSegment, match="it is compressed"):
        read_header(tmp_path / "app", 1)


def test_a_plain_file_with_frames_in_its_header_is_damage(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    header, body = read_segment(tmp_path / "app", 1)
    path.unlink()
    (tmp_path / "app" / segment_name(1)).write_bytes(encode_header(header) + body)
    with pytest.raises(DamagedSegment, match="it is plain"):
        read_header(tmp_path / "app", 1)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(0, 100, 1),
        Frame(100, 0, 1),
        Frame(100, 100, 0),
        Frame(-100, 100, 1),
        Frame(100, 100 * 2**15 + 1, 1),
        Frame(100, 2**60, 1),
        Frame(100, 101, 1),
    ],
)
def test_frames_that_cannot_be_are_damage(tmp_path: Path, frame: Frame) -> None:
    path = compressed_file(tmp_path / "app")
    changed(path, lambda header, frames: (with_frame(header, frame), frames))
    for read in (read_header, read_segment):
        with pytest.raises(DamagedSegment, match="frame"):
            read(tmp_path / "app", 1)


def whole(body: bytes, *, write_content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=write_content_size).compress(body)


@pytest.mark.parametrize(
    "frame",
    [
        whole(b"x" * 10_000),
        whole(b"x" * 100_000_000),
        whole(LARGE, write_content_size=False),
        whole(LARGE) + whole(LARGE),
        whole(LARGE)[:-1],
        b"\0" * 10_000,
        b"",
    ],
)
def test_a_frame_that_is_not_as_the_header_says_is_damage(tmp_path: Path, frame: bytes) -> None:
    path = compressed_file(tmp_path / "app")

    def change(header: Header, frames: list[bytes]) -> tuple[Header, list[bytes]]:
        says = Frame(len(frame) or 1, header.bytes, header.count)
        return msgspec.structs.replace(header, frames=(says,)), [frame]

    changed(path, change)
    with pytest.raises(DamagedSegment):
        read_segment(tmp_path / "app", 1)


def test_a_first_frame_that_claims_to_be_large_is_not_decompressed(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    path.write_bytes(whole(b"\0" * 200_000_000))
    for read in (read_header, read_segment):
        with pytest.raises(DamagedSegment, match="size of a segment header"):
            read(tmp_path / "app", 1)


def test_a_first_frame_of_two_lines_is_damage(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    line = encode_header(read_header(tmp_path / "app", 1))
    path.write_bytes(whole(line + line))
    with pytest.raises(DamagedSegment, match="one header line"):
        read_header(tmp_path / "app", 1)


def test_a_header_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    producers = {f"{hash((1, number)):x}": number for number in range(1024)}
    changed(
        path,
        lambda header, frames: (msgspec.structs.replace(header, producers=producers), frames),
    )
    assert read_header(tmp_path / "app", 1).producers == producers


def test_what_is_behind_the_last_frame_is_damage(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    content = path.read_bytes()
    for more in (b"\0", whole(LARGE), content):
        path.write_bytes(content + more)
        for read in (read_header, read_segment):
            with pytest.raises(DamagedSegment, match="bytes"):
                read(tmp_path / "app", 1)


def without_index(header: Header, frames: list[bytes]) -> tuple[Header, list[bytes]]:
    return msgspec.structs.replace(header, index=msgspec.UNSET), frames


def test_a_segment_without_an_index_is_read_as_a_whole_and_held_to_its_hash(
    tmp_path: Path,
) -> None:
    path = compressed_file(tmp_path / "app")
    changed(path, without_index)
    header, (block,) = read_wanted(tmp_path / "app", 1, lambda _: range(1, 2))
    assert (header.index, block) == (msgspec.UNSET, Block("app", 1, COUNT, LARGE))
    assert list(verify_stream(tmp_path / "app")) == []
    changed(path, with_other_content)
    _, (lost,) = read_wanted(tmp_path / "app", 1, lambda _: range(1, 2))
    assert isinstance(lost, DamagedRecords)
    assert lost[:2] == (1, COUNT)


def with_other_content(header: Header, frames: list[bytes]) -> tuple[Header, list[bytes]]:
    """The first frame is another one, whole in itself, with other records."""
    assert header.frames != msgspec.UNSET
    body = zstandard.ZstdDecompressor().decompress(frames[0]).replace(b'"a":7}', b'"a":8}')
    other = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(body)
    frame = msgspec.structs.replace(header.frames[0], stored_bytes=len(other))
    return with_frame(header, frame), [other, *frames[1:]]


def test_of_one_with_an_index_a_part_is_read_and_held_to_its_own_hash(tmp_path: Path) -> None:
    path = compressed_file(tmp_path / "app")
    header, (block,) = read_wanted(tmp_path / "app", 1, lambda _: range(1, 2))
    assert header.frames != msgspec.UNSET
    before = header.frames[0].count
    assert block == Block("app", 1 + before, COUNT - before, LARGE[header.frames[0].body_bytes :])
    changed(path, with_other_content)
    assert read_wanted(tmp_path / "app", 1, lambda _: range(1, 2))[1] == [block]
    _, (lost, rest) = read_wanted(tmp_path / "app", 1, lambda _: range(2))
    assert isinstance(lost, DamagedRecords)
    assert (lost[:2], rest) == ((1, before), block)
    with pytest.raises(DamagedSegment, match="sha256 of the frame of records"):
        read_segment(tmp_path / "app", 1)


@pytest.mark.parametrize(
    "index",
    [
        (),
        (IndexEntry("2026-11-23T20:00:00.000123Z", "2026-11-23T20:00:00.000456Z", ""),),
        (IndexEntry("yesterday", "2026-11-23T20:00:00.000456Z", ""),) * 2,
        (IndexEntry("2026-11-23T20:00:00.000123Z", "2026-11-23T20:00:01.000456Z", ""),) * 2,
    ],
)
def test_an_index_that_cannot_be_is_damage(tmp_path: Path, index: tuple[IndexEntry, ...]) -> None:
    path = compressed_file(tmp_path / "app")
    changed(path, lambda header, frames: (msgspec.structs.replace(header, index=index), frames))
    with pytest.raises(DamagedSegment, match="index"):
        read_header(tmp_path / "app", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"earlier": Earlier(first=1, since="2026-11-23T20:00:00.000123Z", seals=1)},
        {"prev": "", "earlier": Earlier(first=1, since="2026-11-23T20:00:00.000123Z", seals=1)},
        {"prev": "", "earlier": Earlier(first=0, since="2026-11-23T20:00:00.000123Z", seals=1)},
    ],
)
def test_earlier_seals_that_cannot_be_are_damage(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    path = compressed_file(tmp_path / "app")
    changed(path, lambda header, frames: (msgspec.structs.replace(header, **changes), frames))
    with pytest.raises(DamagedSegment, match="earlier seals"):
        read_header(tmp_path / "app", 1)
