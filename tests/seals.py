"""Streams of sealed segments for tests, and what one who knows the format does to them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from logengine.disk.segment_file import read_header_line, read_segment
from logengine.format.compression import compress_body, encode_compressed_header, with_frames
from logengine.format.segment import header_sha256
from tests.daemon import Daemon, eventually

SEALING = """
[commit]
rewrite_limit = "1KiB"
[compaction]
seal_bytes = "4KiB"
fanout = 2
"""
SEALS = 4


def sealed_stream(daemon: Daemon) -> Daemon:
    """The daemon, stopped, with some sealed segments and one that is not."""
    daemon.start()
    try:
        for number in range(SEALS + 1):
            lines = b"".join(b"record %d of %d %s\n" % (n, number, b"x" * 99) for n in range(50))
            daemon.cli("send", "-s", "app", stdin=lines)
            eventually(lambda wanted=number: len(sealed(daemon)) >= wanted, "a seal")  # type: ignore[misc]
        assert daemon.stop() == 0
    finally:
        daemon.close()
    return daemon


def sealed(daemon: Daemon) -> list[Path]:
    return sorted((daemon.data / "app").glob("*.zst"))


def hash_of(path: Path) -> str:
    return header_sha256(read_header_line(path.parent, int(path.name[:20]))[1])


def rewrite(path: Path, body: Callable[[bytes], bytes] = bytes, **changes: object) -> None:
    """Writes a sealed segment again, with hashes that are right."""
    header, old = read_segment(path.parent, int(path.name[:20]))
    new = body(old)
    frames = list(compress_body([new], 1))
    header = msgspec.structs.replace(
        with_frames(header, frames),
        bytes=len(new),
        count=new.count(b"\n"),
        sha256=hashlib.sha256(new).hexdigest(),
        **changes,
    )
    content = [encode_compressed_header(header), *(frame.content for frame in frames)]
    path.write_bytes(b"".join(content))
