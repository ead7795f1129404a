"""What tests of the committer wait for, and find in the segments."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from logengine.disk.segment_file import list_segments, read_segment

_PATIENCE_S = 20


def numbers_in(data: Path, stream: str) -> list[int]:
    """The numbers of the stored records, which their senders gave them."""
    return [
        int(line.split(b'"n":')[1].split(b"}")[0])
        for first in list_segments(data / stream)
        for line in read_segment(data / stream, first)[1].splitlines()
    ]


async def until(condition: Callable[[], bool]) -> None:
    """Waits until `condition` holds."""
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what it waits for tells no event
            await asyncio.sleep(0.001)
