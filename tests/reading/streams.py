"""Streams as files, without a daemon: each segment of the lines that a test wants in it."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from logengine.format import compression
from logengine.format.segment import first_of_name, segment_name, timestamp_of
from logengine.store.plan import Addition, StreamState, append
from tests.compressed import sealed


def at(second: int) -> str:
    """A second of one minute, as a timestamp."""
    return f"2026-11-23T20:00:{second:02d}.000000Z"


def line(number: int, second: int | None = None, more: str = "") -> bytes:
    """The stored line of a record, taken in that second; in that of its number without one."""
    moment = at(number if second is None else second)
    return b'{"_ts":"%s","n":%d%s}' % (moment.encode(), number, more.encode())


def write_stream(data: Path, stream: str, *segments: Sequence[bytes]) -> None:
    """Writes segments of these lines, from number 1 on."""
    (data / stream).mkdir(parents=True)
    state = StreamState(stream)
    for lines in segments:
        times = [timestamp_of(each) for each in lines]
        addition = Addition([each + b"\n" for each in lines], len(lines), min(times), max(times))
        plan, state = append(state, addition, rewrite_limit=0, max_producers=9)
        (data / stream / segment_name(plan.first)).write_bytes(b"".join(plan.render()))


def seal(data: Path, stream: str, frame_bytes: int) -> None:
    """Puts sealed segments, in frames of about this size, in the place of a stream's plain ones."""
    paths = {first_of_name(path.name): path for path in (data / stream).iterdir()}
    with patch.object(compression, "FRAME_BYTES", frame_bytes):
        chain = sealed({first: path.read_bytes() for first, path in paths.items() if first})
    for first, content in chain.items():
        (data / stream / segment_name(first, compressed=True)).write_bytes(content)
        (data / stream / segment_name(first)).unlink()


def damage(data: Path, stream: str, first: int) -> None:
    """Changes the last digit in a segment."""
    path = data / stream / segment_name(first)
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
