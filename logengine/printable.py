"""Text from files, senders and other users, made safe to print on a terminal or in a log."""

import re
import unicodedata
from functools import lru_cache

_UNSAFE = re.compile(
    # Controls (escape sequences start with one), line and paragraph separators, marks that
    # change the direction of writing, and lone surrogates, which UTF-8 cannot encode.
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)

# Spaces and joiners of no width; the others are unsafe.
_WITHOUT_WIDTH = "\u200b\u200c\u200d\u2060"


def escape(text: str) -> str:
    """Returns `text` with everything escaped that a terminal would act on, newlines included."""
    return _UNSAFE.sub(_escaped, text)


def excerpt(text: str, place: int = 0, characters_max: int = 60) -> str:
    """Returns the part of `text` around `place`, with an ellipsis for what is left out."""
    start = max(0, min(place - characters_max // 2, len(text) - characters_max))
    stop = start + characters_max
    return f"{'…' if start else ''}{text[start:stop]}{'…' if stop < len(text) else ''}"


def columns(text: str) -> int:
    """Returns how many columns of a terminal escaped `text` takes."""
    if text.isascii():
        return len(text)
    return sum(map(_character_columns, text))


def cut(text: str, columns_max: int) -> str:
    """Returns as much of escaped `text` from its start on as these columns hold."""
    if text.isascii():
        return text[:columns_max]
    taken = 0
    for place, character in enumerate(text):
        taken += _character_columns(character)
        if taken > columns_max:
            return text[:place]
    return text


@lru_cache(maxsize=4096)
def _character_columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me") or character in _WITHOUT_WIDTH:
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
