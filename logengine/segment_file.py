"""Segments as files in a stream's directory: list, read, check. Blocking calls.

The first place where names and bytes of `segment` meet the file system; the store and
the reader both read through here.
"""

import errno
import os
from pathlib import Path

from logengine.errors import DamagedSegment
from logengine.segment import (
    HEADER_READ_BYTES,
    Header,
    check_body,
    decode_header_of,
    first_of_name,
    header_length,
    is_stream_name,
    segment_name,
)

# A header names at most max_producers producers; far more than that is no header.
_HEADER_BYTES_MAX = 64 * 1024 * 1024


def list_streams(data: Path) -> list[str]:
    """The streams in a data directory, by name. Raises `OSError`."""
    with os.scandir(data) as entries:
        return sorted(
            entry.name
            for entry in entries
            if is_stream_name(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def list_segments(directory: Path) -> list[int]:
    """The first sequence numbers of a stream's segments, ascending. Raises `OSError`."""
    return sorted(first for name in os.listdir(directory) if (first := first_of_name(name)))


def read_header(directory: Path, first: int) -> Header:
    """The header of segment `first`, held to its name and to the size of its file.

    Reads a few kilobytes, whatever the size of the segment. Raises `DamagedSegment`, and
    `OSError` where the file cannot be opened.
    """
    path = directory / segment_name(first)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _damage_named(path):
            header, body_start = _read_header(descriptor, directory.name, first, str(path))
            expected_bytes = body_start + header.bytes
            found_bytes = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if found_bytes != expected_bytes:
        raise DamagedSegment(
            str(path), f"it has {found_bytes} bytes, its header says {expected_bytes}"
        )
    return header


def read_segment(directory: Path, first: int) -> tuple[Header, bytes]:
    """Header and body of segment `first`, checked to the bit.

    Raises `DamagedSegment`, and `OSError` where the file cannot be opened.
    """
    path = directory / segment_name(first)
    with open(path, "rb", buffering=0) as file, _damage_named(path):
        header, body_start = _read_header(file.fileno(), directory.name, first, str(path))
        file.seek(body_start)
        body = file.read()
    check_body(header, body, str(path))
    return header, body


def _read_header(descriptor: int, stream: str, first: int, path: str) -> tuple[Header, int]:
    start = os.pread(descriptor, HEADER_READ_BYTES, 0)
    while (length := header_length(start)) is None:
        if len(start) > _HEADER_BYTES_MAX:
            raise DamagedSegment(path, "its first line is no segment header: no end in sight")
        more = os.pread(descriptor, len(start) or HEADER_READ_BYTES, len(start))
        if not more:
            found = "empty" if not start else "cut short"
            raise DamagedSegment(path, f"it is {found}: no complete header line")
        start += more
    return decode_header_of(start[:length], stream, first, path), length


class _damage_named:  # noqa: N801 - a context manager used like a function
    """Turns an error of the disk under an open file into damage of that file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise DamagedSegment(str(self._path), f"it cannot be read: {error.strerror}") from error
