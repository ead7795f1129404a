"""Reads inputs in pieces, as they arrive: files, pipes and standard input, for asyncio.

What is compressed is decompressed.
"""

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from logengine.errors import MalformedInput
from logengine.exchange.importing import Converter, converter
from logengine.format.decompression import Decompressor, compression_of, is_undecided
from logengine.local_zone import LOCAL_ZONE, local_now

_READ_BYTES = 1024 * 1024


async def read_input(name: str) -> AsyncIterator[bytes]:
    """Yields the content of a file, or of standard input (`-`), in pieces.

    Input that is compressed with gzip, bzip2, xz or zstd is decompressed. Raises `MalformedInput`
    if it is cut off or damaged, and `OSError`.
    """
    start = b""
    decompressor: Decompressor | None = None
    is_decided = False
    async for read in _read(name):
        chunk = read
        if not is_decided:
            start += chunk
            if is_undecided(start):
                continue
            is_decided = True
            compression = compression_of(start)
            decompressor = Decompressor(compression) if compression else None
            chunk = start
        if decompressor is None:
            yield chunk
            continue
        for piece in decompressor.receive(chunk):
            yield piece
    if decompressor is not None:
        decompressor.end()
    elif not is_decided and start:
        yield start


async def _read(name: str) -> AsyncIterator[bytes]:
    with _opened(name) as descriptor:
        # A larger pipe makes larger portions, and so fewer notes with --resume.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _READ_BYTES)
        while chunk := await _read_some(descriptor):
            yield chunk


async def read_inputs(names: Sequence[str]) -> AsyncIterator[bytes]:
    """Yields the content of the inputs in order, each ended by a newline.

    Raises `MalformedInput` and `OSError`.
    """
    for name in names:
        end = b""
        with naming(name):
            async for chunk in read_input(name):
                yield chunk
                end = chunk[-1:]
        if end not in (b"", b"\n"):
            yield b"\n"  # otherwise the next file's first line would be joined to this one


async def read_converted(names: Sequence[str], form: str) -> AsyncIterator[bytes]:
    """Yields inputs of a format of `importing` as NDJSON. Raises `MalformedInput`, `OSError`."""
    for name in names:
        conversion: Converter | None = None
        with naming(name):
            async for chunk in read_input(name):
                conversion = conversion or converter(form, chunk, written_at(name))
                yield conversion.receive(chunk)
            if conversion is not None:
                yield conversion.end()


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the name of the input in front of a `MalformedInput`."""
    try:
        yield
    except MalformedInput as error:
        raise MalformedInput(f"{name}: {error}") from None


async def complete_lines(chunks: AsyncIterator[bytes], max_record: int) -> AsyncIterator[bytes]:
    """Yields `chunks` cut at line ends instead. A last line without a newline gets one.

    A line longer than `max_record` is passed on only up to a length that the daemon refuses.
    """
    rest = bytearray()
    async for chunk in chunks:
        stop = chunk.rfind(b"\n") + 1
        if stop:
            yield bytes(rest) + chunk[:stop]
            rest.clear()
        room = max_record + 2 - len(rest)
        rest += chunk[stop : stop + max(0, room)]
    if rest:
        yield bytes(rest) + b"\n"


def written_at(name: str) -> datetime:
    """Returns about when the last line of an input was written, as an aware, local time.

    A line without a year is assumed to be no newer than that.
    """
    now = local_now()
    if name == "-" or not Path(name).is_file():
        return now
    return datetime.fromtimestamp(Path(name).stat().st_mtime, LOCAL_ZONE)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    if name == "-":
        yield sys.stdin.fileno()
        return
    with open(name, "rb", buffering=0) as file:
        yield file.fileno()


async def _read_some(descriptor: int) -> bytes:
    """Returns the next bytes. Waits without a thread, because a pipe may be silent for hours."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:  # a regular file: epoll rejects it, and it never blocks for long
        return os.read(descriptor, _READ_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _READ_BYTES)
