"""Text from files, senders and other users, made safe to print on a terminal or in a log."""

import re
import unicodedata

_UNSAFE = re.compile(
    # Controls (escape sequences start with one), line and paragraph separators, marks that
    # change the direction of writing, and lone surrogates, which UTF-8 cannot encode.
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def escape(text: str) -> str:
    """Returns `text` with everything escaped that a terminal would act on, newlines included."""
    return _UNSAFE.sub(_escaped, text)


def columns(text: str) -> int:
    """Returns how many columns of a terminal escaped `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
