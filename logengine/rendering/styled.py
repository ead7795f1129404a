"""Text with the colours of a terminal: made, highlighted, measured, wrapped. No I/O.

Everything but the colours is escaped already: the only escape sequences are those made here. Each
ends by its own end, not by a reset of all, so that one can be within another.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from logengine.printable import columns


class Colour(NamedTuple):
    """Escape sequences that begin and end a colour."""

    begin: str
    end: str

    def __call__(self, text: str) -> str:
        """Returns the text in this colour; nothing for no text."""
        return f"{self.begin}{text}{self.end}" if text else ""


_NO_FOREGROUND = "\x1b[39m"
PLAIN = Colour("", "")
BOLD = Colour("\x1b[1m", "\x1b[22m")
GREY = Colour("\x1b[90m", _NO_FOREGROUND)
RED = Colour("\x1b[31m", _NO_FOREGROUND)
GREEN = Colour("\x1b[32m", _NO_FOREGROUND)
YELLOW = Colour("\x1b[33m", _NO_FOREGROUND)
BLUE = Colour("\x1b[34m", _NO_FOREGROUND)
MAGENTA = Colour("\x1b[35m", _NO_FOREGROUND)
CYAN = Colour("\x1b[36m", _NO_FOREGROUND)
BOLD_RED = Colour("\x1b[1;31m", "\x1b[22;39m")
REVERSE = Colour("\x1b[7m", "\x1b[27m")

_SEQUENCE = re.compile("\x1b\\[[0-9;]*m")
_RESET = "\x1b[0m"
_WORD = re.compile(r" +|[^ ]+")
# A terminal is not taken for narrower: there would be no room beside the indentation.
COLUMNS_MIN = 20


def plain(text: str) -> str:
    """Returns the text without its colours."""
    return _SEQUENCE.sub("", text)


def highlight(text: str, pattern: re.Pattern[str]) -> str:
    """Returns the text with every match of the pattern reversed, whatever colours are in it."""
    spans = [found.span() for found in pattern.finditer(plain(text)) if found[0]]
    if not spans:
        return text
    edges = iter(
        [(place, kind) for span in spans for place, kind in zip(span, REVERSE, strict=True)]
    )
    parts: list[str] = []
    place, edge = 0, next(edges, None)
    for piece in _pieces(text):
        if piece.startswith("\x1b"):
            parts.append(piece)
            continue
        start = 0
        while edge is not None and edge[0] <= place + len(piece):
            stop = edge[0] - place
            if edge[1] is REVERSE.begin and stop == len(piece):
                break  # it begins with the next piece
            parts += (piece[start:stop], edge[1])
            start, edge = stop, next(edges, None)
        parts.append(piece[start:])
        place += len(piece)
    return "".join(parts)


def wrap(text: str, width: int, indentation: int) -> str:
    """Returns a row in lines of at most `width` columns, the later ones indented.

    Breaks between words; cuts a word only if it does not fit into a line of its own. `width` is at
    least `COLUMNS_MIN`. Spaces at a break are dropped. O(length of the text).
    """
    indentation = min(indentation, width // 2)
    lines: list[str] = []
    line: list[str] = []
    used = 0
    spaces = ""  # not printed yet: they are dropped at a break
    begun: list[str] = []

    def end_line() -> None:
        nonlocal line, used, spaces
        if begun:
            line.append(_RESET)
        lines.append("".join(line))
        line = [" " * indentation, *begun]
        used, spaces = indentation, ""

    for piece in _pieces(text):
        if piece.startswith("\x1b"):
            line.append(piece)
            _follow(begun, piece)
            continue
        for word in _WORD.findall(piece):
            if word.startswith(" "):
                spaces += word
                continue
            taken = columns(word)
            if used + len(spaces) + taken > width and taken <= width - indentation:
                end_line()
            spaces = spaces[: max(0, width - used - 1)]
            line.append(spaces)
            used, spaces = used + len(spaces), ""
            for part in _cut(word, width - used, width - indentation):
                if part is None:
                    end_line()
                else:
                    line.append(part)
                    used += columns(part)
    lines.append("".join(line))
    return "\n".join(lines)


def _cut(word: str, first: int, others: int) -> Iterator[str | None]:
    """Yields a word in parts that fit into the rest of a line and into others, None between."""
    if columns(word) <= first:
        yield word
        return
    start = used = 0
    room = first
    for place, character in enumerate(word):
        taken = columns(character)
        if used + taken > room:
            yield word[start:place]
            yield None
            start, used, room = place, 0, others
        used += taken
    yield word[start:]


def _follow(begun: list[str], sequence: str) -> None:
    """Notes that a sequence begins something, or ends what was begun last."""
    if sequence in _ENDS:
        begun.append(sequence)
        return
    for place in range(len(begun) - 1, -1, -1):
        if _ENDS[begun[place]] == sequence:
            del begun[place]
            return


def _pieces(text: str) -> Iterator[str]:
    """Yields the text in turn as sequences and as what is between them."""
    start = 0
    for found in _SEQUENCE.finditer(text):
        if start < found.start():
            yield text[start : found.start()]
        yield found[0]
        start = found.end()
    if start < len(text):
        yield text[start:]


_ENDS = dict([BOLD, GREY, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, BOLD_RED, REVERSE])
