"""Recognizes compressed input by its first bytes, and decompresses it as it arrives.

Several members or frames after each other are one input, as `cat a.gz b.gz` makes it. Bytes in,
bytes out; what is decompressed comes in pieces of bounded size, however well it was compressed.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from logengine.errors import MalformedInput

_PIECE_BYTES_MAX = 1024 * 1024
# A zstd frame's block has at most 128 KiB and may be four bytes of input. It has no bound of its
# own on what one call returns, so a call gets this much.
_ZSTD_INPUT_BYTES = 256

# This many bytes at the start of an input always say whether and how it is compressed.
COMPRESSION_BYTES = 10
_MAGIC = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd",
}
# A text may begin like bzip2's magic number, but not with what follows it.
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")


def is_undecided(start: bytes) -> bool:
    """Returns whether more bytes are needed to say whether an input is compressed."""
    if any(len(start) < len(magic) and magic.startswith(start) for magic in _MAGIC.values()):
        return True
    magic = _MAGIC["bzip2"]
    return start.startswith(magic) and (
        len(start) == len(magic)
        or (
            start[3:4].isdigit()
            and len(start) < COMPRESSION_BYTES
            and any(block.startswith(start[4:]) for block in _BZIP2_BLOCKS)
        )
    )


def compression_of(start: bytes) -> str | None:
    """Returns how an input that begins with `start` is compressed; None if it is not.

    The names are gzip (RFC 1952), bzip2, xz, zstd (RFC 8878).
    """
    for name, magic in _MAGIC.items():
        if start.startswith(magic) and (
            name != "bzip2"
            or (start[3:4].isdigit() and start[4:COMPRESSION_BYTES] in _BZIP2_BLOCKS)
        ):
            return name
    return None


class _Member(Protocol):
    """One gzip or xz member, or bzip2 stream, or zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def pieces(self, data: bytes) -> Iterator[bytes]: ...


class _OfStandardLibrary:
    """What the decompressors of gzip, bzip2 and xz have in common."""

    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decompressor.unused_data)


class _Zlib(_OfStandardLibrary):
    def pieces(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._decompressor.decompress(data, _PIECE_BYTES_MAX)
            data = self._decompressor.unconsumed_tail
            if piece:
                yield piece
            if not data and len(piece) < _PIECE_BYTES_MAX:
                return


class _Bounded(_OfStandardLibrary):
    """bzip2 and xz, which have one interface."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while True:
            if piece := self._decompressor.decompress(data, _PIECE_BYTES_MAX):
                yield piece
            data = b""
            if self._decompressor.eof or self._decompressor.needs_input:
                return


class _Zstd:
    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._unused = b""

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return self._unused

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_INPUT_BYTES):
            stop = start + _ZSTD_INPUT_BYTES
            if piece := self._decompressor.decompress(data[start:stop]):
                yield piece
            if self._decompressor.eof:
                self._unused = self._decompressor.unused_data + data[stop:]
                return


_MEMBERS: dict[str, Callable[[], _Member]] = {
    "gzip": lambda: _Zlib(zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)),
    "bzip2": lambda: _Bounded(bz2.BZ2Decompressor()),
    "xz": lambda: _Bounded(lzma.LZMADecompressor()),
    "zstd": _Zstd,
}


class Decompressor:
    """Decompresses an input of the given compression, a name of `compression_of`."""

    def __init__(self, compression: str) -> None:
        self._compression = compression
        self._new = _MEMBERS[compression]
        self._member: _Member | None = self._new()

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yields what `data` decompresses to. Raises `MalformedInput`."""
        while data:
            if self._member is None:
                data = data.lstrip(b"\0")  # programs that write blocks pad the last one
                if not data:
                    return
                self._member = self._new()
            try:
                yield from self._member.pieces(data)
            except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise MalformedInput(f"is not a whole {self._compression} file: {error}") from None
            if not self._member.eof:
                return
            data, self._member = self._member.unused_data, None

    def end(self) -> None:
        """Raises `MalformedInput` if the input is cut off."""
        if self._member is not None:
            raise MalformedInput(f"is not a whole {self._compression} file: it is cut off")
