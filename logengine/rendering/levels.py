"""Levels as people are shown them, whatever a logger wrote: five characters, a colour. No I/O."""

from collections.abc import Mapping
from typing import Any

from logengine.filtering.levels import LEVEL_NAMES, is_level_field, rank_of_name, rank_of_number
from logengine.rendering.styled import (
    BLUE,
    BOLD_RED,
    CYAN,
    GREEN,
    GREY,
    MAGENTA,
    RED,
    YELLOW,
    Colour,
)

LEVEL_CHARACTERS = 5
_SHOWN: dict[str, tuple[str, Colour]] = {
    "trace": ("TRACE", GREY),
    "debug": ("DEBUG", BLUE),
    "info": ("INFO", GREEN),
    "notice": ("NOTE", CYAN),
    "warning": ("WARN", YELLOW),
    "error": ("ERROR", RED),
    "critical": ("CRIT", BOLD_RED),
    "alert": ("ALERT", MAGENTA),
    "emergency": ("EMERG", MAGENTA),
}
# No text of more characters is a number with a meaning.
_DIGITS_MAX = 3


def rank_of(name: str, value: Any) -> int | None:
    """Returns the rank of a level, a name or a number, in the field `name`; None if it is none."""
    if type(value) is str:
        rank = rank_of_name(value)
        if rank is None and len(value) <= _DIGITS_MAX and value.isdecimal() and value.isascii():
            return rank_of_number(int(value), name)
        return rank
    return rank_of_number(value, name) if type(value) is int else None


def level_field(fields: Mapping[str, Any]) -> str | None:
    """Returns the name of the first field that contains a level; None if there is none."""
    if "level" in fields and rank_of("level", fields["level"]) is not None:
        return "level"
    return next(
        (
            name
            for name, value in fields.items()
            if is_level_field(name) and rank_of(name, value) is not None
        ),
        None,
    )


def shown(rank: int) -> tuple[str, Colour]:
    """Returns how a level is shown, by its rank: its text, and its colour."""
    return _SHOWN[LEVEL_NAMES[rank]]
