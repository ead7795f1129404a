"""Makes a large stream in one step: segment files written by the codec, without a daemon.

Sealed ones are made from them as a daemon's compactor does it, one by one.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.records import real_looking
from logengine.disk.durable_names import DurableNames
from logengine.format.segment import FORMAT_VERSION, Header, encode_header, segment_name
from logengine.format.timestamp import format_timestamp
from logengine.upkeep.compaction_plan import EndedSegment
from logengine.upkeep.rewrite import Pace, Rewriter

START = datetime(2026, 11, 23, tzinfo=UTC)
SPAN = timedelta(days=1)
_CHUNK_BYTES = 64 * 1024  # records with the same time
_LEVEL = 3
_DIRECT_ABOVE = 256 * 1024
_OPENING = b'{"_ts":"%s"'
_PEER = b',"_pid":812,"_uid":1000,"_gid":1000,"_comm":"web"'


def write_stream(
    directory: Path, total_bytes: int, segment_bytes: int, *, sealed: bool = False
) -> int:
    """Writes segments of about `segment_bytes` until there are `total_bytes`, over `SPAN` of time.

    Returns the number of records. They are on the disk then: nothing is still being written.
    With `sealed`, all segments except the last are compressed and sealed.
    """
    directory.mkdir(parents=True)
    seal = _sealing(directory)
    first = 1
    latest = ""
    written_bytes = 0
    chunks = _chunks()
    while written_bytes < total_bytes:
        body: list[bytes] = []
        count = body_bytes = 0
        since = ""
        while body_bytes < segment_bytes:
            chunk, records = next(chunks)
            when = START + SPAN * ((written_bytes + body_bytes) / total_bytes)
            latest = format_timestamp(int(when.timestamp() * 1e6) * 1000)
            since = since or latest
            body.append(chunk.replace(_OPENING % b"", _OPENING % latest.encode()))
            body_bytes += len(body[-1])
            count += records
        joined = b"".join(body)
        header = Header(
            version=FORMAT_VERSION,
            stream=directory.name,
            first=first,
            count=count,
            bytes=len(joined),
            since=since,
            until=latest,
            latest=latest,
            sha256=hashlib.sha256(joined).hexdigest(),
        )
        with (directory / segment_name(first)).open("wb", buffering=0) as file:
            file.write(encode_header(header) + joined)
        written_bytes += len(joined)
        if sealed and written_bytes < total_bytes:
            seal(EndedSegment(first, header.last, len(joined)))
        first += count
    os.sync()
    return first - 1


def _sealing(directory: Path) -> Callable[[EndedSegment], None]:
    """Returns a function that seals one segment after the other."""
    rewriter = Rewriter(
        directory.parent,
        Pace(math.inf),
        names=DurableNames(note=lambda _: None),
        direct_above=_DIRECT_ABOVE,
        level=_LEVEL,
    )
    before: int | None = None

    def seal(part: EndedSegment) -> None:
        nonlocal before
        writer, _ = rewriter.seal(directory.name, [part], before)
        writer.publish()
        (directory / segment_name(part.first)).unlink()
        before = part.first

    return seal


def _chunks() -> Iterator[tuple[bytes, int]]:
    """Stored lines without a time, repeated, and their number."""
    blocks = []
    for block in real_looking().blocks:
        lines = block[:_CHUNK_BYTES].splitlines()
        stored = b"".join(_OPENING % b"" + _PEER + b"," + line[1:] + b"\n" for line in lines)
        blocks.append((stored, len(lines)))
    while True:
        yield from blocks
