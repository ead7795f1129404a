"""Finds lines in a whole body by what they contain, without splitting it into lines. No I/O."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# From a place on, the next place where something is found; the length of the text if none is.
Find = Callable[[int], int]

# The ranks of searches, from the one that probably finds the fewest lines.
RARE_TEXT, KEY_AND_VALUE, KEY, EVERY_LINE = range(4)


@dataclass(frozen=True)
class Search:
    """What to look for: lines that contain one of `literals`, or a match of one of `patterns`.

    Without either, all lines. With `ignore_case`, the literals are in lower case. The lower `rank`
    is, the fewer lines there probably are.
    """

    literals: tuple[bytes, ...] = ()
    patterns: tuple[bytes, ...] = ()
    ignore_case: bool = False
    rank: int = EVERY_LINE

    @classmethod
    def of_text(cls, literal: bytes, *, ignore_case: bool = False) -> "Search":
        """The search for lines that contain this text, which may be empty."""
        if not literal:
            return ALL_LINES
        text = literal.lower() if ignore_case else literal
        return cls((text,), ignore_case=ignore_case, rank=RARE_TEXT)

    @property
    def order(self) -> tuple[int, int]:
        """Sorts searches: first the one that probably finds the fewest lines."""
        return self.rank, -len(self.literals[0]) if self.literals else 0

    def lines(self, body: bytes) -> Iterator[tuple[int, int]]:
        """Yields the lines of a body that are found, each with its newline, in order."""
        if not (self.literals or self.patterns):
            start = 0
            while stop := body.find(b"\n", start) + 1:
                yield start, stop
                start = stop
            return
        text = body.lower() if self.ignore_case else body
        finders = [_matcher(body, pattern) for pattern in self.patterns]
        finders += [_finder(text, literal) for literal in self.literals]
        yield from _lines_found(text, finders[0], finders[1:])


ALL_LINES = Search()


def _lines_found(text: bytes, find: Find, others: Sequence[Find]) -> Iterator[tuple[int, int]]:
    """Yields the lines in which `find` or one of the others finds something."""
    # What the others look for is rarer, or not there at all: most rounds take one call.
    hit, place = find(0), 0
    hits = [other(0) for other in others]
    next_of_others = min(hits, default=len(text))
    while (nearest := min(hit, next_of_others)) < len(text):
        start = text.rfind(b"\n", place, nearest) + 1 or place
        place = text.find(b"\n", nearest) + 1
        yield start, place
        if hit < place:
            hit = find(place)
        if next_of_others < place:
            hits = [
                other(place) if known < place else known
                for other, known in zip(others, hits, strict=True)
            ]
            next_of_others = min(hits)


def _finder(text: bytes, literal: bytes) -> Find:
    # One byte is found many times as fast as several. Most bodies have no escape at all.
    if literal.startswith(b"\\") and b"\\" not in text:
        return lambda _place: len(text)

    def find(place: int) -> int:
        found = text.find(literal, place)
        return len(text) if found < 0 else found

    return find


def _matcher(body: bytes, pattern: bytes) -> Find:
    search = re.compile(pattern).search

    def find(place: int) -> int:
        found = search(body, place)
        return found.start() if found else len(body)

    return find
