"""Reads log files on disk, from any byte on, compressed or not."""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import zstandard

from logengine.format.decompression import COMPRESSION_BYTES, compression_of
from logengine.format.record import BLANK
from logengine.resume.history import FINGERPRINT_BYTES_MAX, Place
from logengine.resume.lines import begins_as, first_line, new_hash
from logengine.resume.rotation import COMPRESSIONS, Rotated, rotated_names

_READ_BYTES = 1024 * 1024


@contextmanager
def opened(path: str) -> Iterator[tuple[IO[bytes], int]]:
    """Yields a file's content, decompressed, and its inode.

    Raises `OSError`, also if a compressed file is cut off, or is not one although its name says so.
    """
    compression = COMPRESSIONS.get(os.path.splitext(path)[1])
    try:
        with open(path, "rb") as file:
            start = file.peek(COMPRESSION_BYTES)[:COMPRESSION_BYTES]
            found = compression_of(start)
            if start and compression and found is None:
                # It may be in the middle of being written.
                raise EOFError("it does not begin like one")
            compression = found
            yield _content(file, compression), os.fstat(file.fileno()).st_ino
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        if isinstance(error, OSError) and (error.errno or error.filename or compression is None):
            raise
        raise OSError(
            None, f"is not a whole {compression} file ({error}); try again", path
        ) from None


def _content(file: io.BufferedReader, compression: str | None) -> IO[bytes]:
    match compression:
        case "gzip":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        case "bzip2":
            return bz2.BZ2File(file)
        case "xz":
            return lzma.LZMAFile(file)
        case "zstd":
            decompressor = zstandard.ZstdDecompressor()
            reader = decompressor.stream_reader(file, read_across_frames=True)
            return io.BufferedReader(cast("io.RawIOBase", reader))  # which has `readline`
    return file


def skip_to(file: IO[bytes], offset: int) -> bool:
    """Moves a newly opened file to byte `offset`; returns whether it has that many."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
        return file.seek(offset) <= os.fstat(file.fileno()).st_size
    while offset:
        data = file.read(min(offset, _READ_BYTES))
        if not data:
            return False
        offset -= len(data)
    return True


def pieces(file: IO[bytes], size: int | None = None) -> Iterator[bytes]:
    """Yields the next `size` bytes of a file, or all the rest, in pieces; fewer at its end."""
    while size is None or size > 0:
        data = file.read(_READ_BYTES if size is None else min(_READ_BYTES, size))
        if not data:
            return
        if size is not None:
            size -= len(data)
        yield data


class LogFiles:
    """`recognition.Files` on disk; compressed files are decompressed."""

    def __init__(self) -> None:
        self._heads: dict[str, bytes] = {}
        self._inodes: dict[str, int] = {}
        self._rotated: dict[str, list[Rotated]] = {}
        self._listed: dict[str, dict[int, list[str]]] = {}

    def inode(self, path: str) -> int:
        """Returns the inode that the file had when it was first opened."""
        self._look(path)
        return self._inodes[path]

    def first_line(self, path: str) -> bytes:
        """Returns the file's first non-blank line, without its newline; at most 1 MiB of it."""
        with opened(path) as (file, _):
            while line := file.readline(_READ_BYTES):
                if line.strip(BLANK + b"\n"):
                    return line.rstrip(b"\n")
        return b""

    def _look(self, path: str) -> bytes:
        if path not in self._heads:
            with opened(path) as (file, inode):
                self._heads[path] = file.read(FINGERPRINT_BYTES_MAX)
                self._inodes[path] = inode
        return self._heads[path]

    def holds(self, path: str, place: Place) -> bool:
        """See `recognition.Files`. False for a file that cannot be read."""
        try:
            if not begins_as(self._look(path), place):
                return False
            with opened(path) as (file, _):
                if not skip_to(file, place.start):
                    return False
                digest = new_hash()
                for piece in pieces(file, place.stop - place.start):
                    digest.update(piece)
                return digest.hexdigest() == place.digest
        except OSError:
            return False

    def rotated(self, path: str) -> list[Rotated]:
        """See `recognition.Files`. For a symbolic link, searches the directory of its target."""
        if path not in self._rotated:
            directory, name = os.path.split(os.path.realpath(path))
            paths = [each for its in self._in(directory).values() for each in its]
            self._rotated[path] = [
                each._replace(name=os.path.join(directory, each.name))
                for each in rotated_names(name, map(os.path.basename, paths))
            ]
        return self._rotated[path]

    def moved(self, path: str, inode: int) -> list[str]:
        """See `recognition.Files`. Also searches next to a symbolic link, for its former target."""
        directories = {os.path.dirname(path), os.path.dirname(os.path.realpath(path))}
        return [each for directory in directories for each in self._in(directory).get(inode, [])]

    def _in(self, directory: str) -> dict[int, list[str]]:
        if directory not in self._listed:
            listed: dict[int, list[str]] = {}
            for each in os.scandir(directory):
                if each.is_file(follow_symlinks=False):
                    listed.setdefault(each.inode(), []).append(each.path)
            self._listed[directory] = listed
        return self._listed[directory]

    def describe(self, path: str) -> str:
        """See `recognition.Files`."""
        head = self._look(path)
        return f"begins with {first_line(head)!r}" if head else "is empty"
