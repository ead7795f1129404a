"""Finds the intact lines of a damaged spool segment: bytes in, lines and their places out.

A spool's segment has one hash for all its lines, so no single line can be verified. A line counts
as intact if it is a JSON object or, if no line is one, text. No I/O.
"""

from logengine.client.outbox import Chunk
from logengine.format.json_object import stored_fields


def whole_parts(
    content: bytes, first: int, last: int | None, *, is_header_whole: bool
) -> list[Chunk]:
    """Returns the intact lines of a file's `content`, adjacent ones as one chunk, by place.

    `first` and `last` are the places in the segment; `last` is None if unknown. Leaves out lines
    whose place is unknown because lines are missing on both sides.
    """
    _, _, body = content.partition(b"\n")
    *lines, unfinished = body.split(b"\n")
    are_whole = _are_whole(lines)
    count = len(lines) if last is None else last + 1 - first
    if len(lines) == count:
        places = list(range(first, first + count))
    else:
        places = _placed(are_whole, first, count, ends_whole=not (unfinished or is_header_whole))
    runs: list[tuple[int, list[bytes]]] = []
    for line, is_whole, place in zip(lines, are_whole, places, strict=False):
        if is_whole and place:
            if not runs or runs[-1][0] + len(runs[-1][1]) != place:
                runs.append((place, []))
            runs[-1][1].append(line + b"\n")
    return [Chunk(begin, begin + len(run) - 1, b"".join(run)) for begin, run in runs]


def _placed(are_whole: list[bool], first: int, count: int, *, ends_whole: bool) -> list[int]:
    """Returns each line's place: from the front before breaks, from the end after them, else 0."""
    broken = [index for index, is_whole in enumerate(are_whole) if not is_whole]
    if broken:
        front, back = broken[0], broken[-1] + 1
    elif ends_whole:
        front, back = 0, 0  # the first lines were lost with the header
    else:
        front, back = len(are_whole), len(are_whole)  # the end is cut off
    stop = first + count
    end = len(are_whole)
    placed = [first + index if index < front else 0 for index in range(back)]
    placed += [stop - end + index for index in range(back, end)]
    return [place if first <= place < stop else 0 for place in placed]


def _are_whole(lines: list[bytes]) -> list[bool]:
    are_objects = [stored_fields(line) is not None for line in lines]
    return are_objects if any(are_objects) else [_is_text(line) for line in lines]


def _is_text(line: bytes) -> bool:
    try:
        return line.decode().isprintable() and bool(line.strip())
    except UnicodeDecodeError:
        return False
