"""Arithmetic on ranges of places, to find the places of a spool whose records are missing. No I/O.

A range is a pair of its first and its last place, both inclusive.
"""

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def gaps_between(held: Iterable[Range], begin: int, end: int) -> list[Range]:
    """Returns the parts of `begin` to `end` outside `held`, which is sorted without overlaps."""
    gaps: list[Range] = []
    for first, last in held:
        if first > begin:
            gaps.append((begin, min(first - 1, end)))
        begin = max(begin, last + 1)
    gaps.append((begin, end))
    return [(first, last) for first, last in gaps if first <= last]


def without(gaps: Iterable[Range], known: Iterable[Range]) -> list[Range]:
    """Returns the parts of `gaps` outside `known`, which may be unsorted and may overlap."""
    in_order = sorted(known)
    return [left for gap in gaps for left in gaps_between(in_order, *gap)]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Returns the same places sorted, with adjacent and overlapping ranges merged."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def as_text(gaps: Sequence[Range], offset: int) -> str:
    """Returns the ranges as text for people, with `offset` added to each place."""
    return ", ".join(
        str(first + offset) if first == last else f"{first + offset} to {last + offset}"
        for first, last in gaps
    )
