"""Compressed input is recognized and decompressed, however it arrives."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logengine.errors import MalformedInput
from logengine.format.decompression import Decompressor, compression_of, is_undecided

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
forms = st.sampled_from(sorted(COMPRESS))


def decompressed(form: str, data: bytes, size: int) -> bytes:
    decompressor = Decompressor(form)
    result = b"".join(
        piece
        for start in range(0, len(data), size)
        for piece in decompressor.receive(data[start : start + size])
    )
    decompressor.end()
    return result


@given(forms, st.lists(st.binary(max_size=3000), min_size=1, max_size=3), st.integers(1, 500))
def test_members_are_one_input_however_it_is_cut(form: str, parts: list[bytes], size: int) -> None:
    data = b"".join(COMPRESS[form](part) for part in parts)
    assert compression_of(data[:10]) == form
    assert decompressed(form, data, size) == b"".join(parts)
    assert decompressed(form, data + b"\0" * 300, size) == b"".join(parts)


@given(forms, st.binary(min_size=1, max_size=2000), st.integers(1, 500), st.data())
def test_what_is_cut_off_is_refused(
    form: str, content: bytes, size: int, data: st.DataObject
) -> None:
    whole = COMPRESS[form](content)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(MalformedInput, match=f"not a whole {form} file"):
        decompressed(form, whole[:cut], size)


@pytest.mark.parametrize("form", sorted(COMPRESS))
def test_what_follows_the_end_and_is_no_member_is_refused(form: str) -> None:
    with pytest.raises(MalformedInput, match=f"not a whole {form} file"):
        decompressed(form, COMPRESS[form](b"line\n") + b"line\n", 100)


@pytest.mark.parametrize("form", sorted(COMPRESS))
def test_what_is_decompressed_comes_in_pieces(form: str) -> None:
    size = 32 * 1024 * 1024
    pieces = [len(piece) for piece in Decompressor(form).receive(COMPRESS[form](bytes(size)))]
    assert sum(pieces) == size
    assert max(pieces) <= 9 * 1024 * 1024


@given(st.binary(max_size=30))
def test_ten_bytes_always_decide(start: bytes) -> None:
    if len(start) >= 10:
        assert not is_undecided(start)
    if is_undecided(start):
        assert compression_of(start) is None


@given(forms, st.binary(max_size=30))
def test_what_is_compressed_is_undecided_until_it_is_recognized(form: str, content: bytes) -> None:
    data = COMPRESS[form](content)
    for stop in range(1, 10):
        assert is_undecided(data[:stop]) or compression_of(data[:stop]) == form


@pytest.mark.parametrize("text", [b"BZh", b"BZh9 is a line\n", b"BZha\n", b"", b"\x1f\x8b", b"\n"])
def test_a_text_that_only_begins_like_a_compressed_file_is_none(text: bytes) -> None:
    assert compression_of(text) is None


def test_an_empty_bzip2_file_is_recognized() -> None:
    assert compression_of(bz2.compress(b"")) == "bzip2"
    assert decompressed("bzip2", bz2.compress(b""), 3) == b""


def test_a_damaged_byte_is_found() -> None:
    data = bytearray(gzip.compress(b"a line\n" * 100))
    data[-6] ^= 1
    with pytest.raises(MalformedInput, match="not a whole gzip file"):
        decompressed("gzip", bytes(data), 7)
