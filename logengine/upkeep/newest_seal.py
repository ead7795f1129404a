"""Finds the newest seal of a stream."""

from pathlib import Path

from logengine.disk.segment_file import list_segments, read_header_line
from logengine.errors import LogEngineError
from logengine.format.seal_list import ListedSeal
from logengine.format.segment import hash_for_successor

# How often a stream is listed again because a compaction or commit changed it during the reading.
_LOOKS_MAX = 100


def newest_seal(directory: Path) -> ListedSeal | None:
    """Returns the newest seal of a stream; None if it has none.

    Reads the headers after it, and no records. Raises `DamagedSegment` if one of them is damaged,
    and `LogEngineError` if the stream changes faster than it can be read.
    """
    for _ in range(_LOOKS_MAX):
        try:
            for first in reversed(list_segments(directory)):
                header, line = read_header_line(directory, first)
                if header.is_sealed:
                    hash_of_seal = hash_for_successor(header, line)
                    return ListedSeal(header.stream, header.last, hash_of_seal)
        except FileNotFoundError:
            continue
        return None
    raise LogEngineError(f"{directory} changes faster than it can be read; try again")
