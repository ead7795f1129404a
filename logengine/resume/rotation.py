"""The names that rotated log files get. No I/O.

access.log.1  access.log.2.gz           logrotate, savelog, Python's RotatingFileHandler
access.log-20261128  access.log.2026-11-28.gz   logrotate's dateext, TimedRotatingFileHandler
access-20261128.log  access.1.log       logrotate's `extension`, loguru, log4j
access.log.old                          programs that keep one generation
"""

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

# The suffixes of compressed files, and what they say.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}

_VARYING = r"(?P<varying>\d[\d._T:-]*?|old)"
_COMPRESSED = rf"(?P<compressed>{'|'.join(map(re.escape, COMPRESSIONS))})?"
_IS_VARYING = re.compile(_VARYING)
_SEPARATOR = re.compile(r"[._-](?=\d|old)")
# A number with more digits is a date.
_COUNTER_DIGITS_MAX = 5


class Rotated(NamedTuple):
    """A name, its family, and its age within that: the newest has the highest `age_key`."""

    name: str
    family: str
    age_key: tuple[int, str]


def rotated_names(name: str, names: Iterable[str]) -> list[Rotated]:
    """Returns those of `names` that are older generations of `name`, the newest first.

    If one exists both plain and compressed, the plain one counts.
    """
    stem, extension = posixpath.splitext(name)
    patterns = [rf"{re.escape(name)}[.-]{_VARYING}{_COMPRESSED}"]
    if stem and extension:
        patterns.append(rf"{re.escape(stem)}[._-]{_VARYING}{re.escape(extension)}{_COMPRESSED}")
    found: dict[tuple[str, tuple[int, str]], Rotated] = {}
    for each in sorted(names):  # a plain name comes before its compressed one
        if each == name:
            continue
        for place, pattern in enumerate(patterns):
            match = re.fullmatch(pattern, each)
            if match is not None:
                kind, age_key = _age(match["varying"])
                rotated = Rotated(each, f"{place} {kind}", age_key)
                found.setdefault((rotated.family, age_key), rotated)
                break
    return sorted(found.values(), key=lambda each: each.age_key, reverse=True)


def rotated_from(name: str) -> list[str]:
    """Returns the names of which `name` may be an older generation, by `rotated_names`."""
    stem, extension = posixpath.splitext(name)
    plain = stem if extension in COMPRESSIONS else name
    found = []
    for separator in _SEPARATOR.finditer(plain):
        before, rest = plain[: separator.start()], plain[separator.end() :]
        if before and separator[0] in ".-" and _IS_VARYING.fullmatch(rest):
            found.append(before)
        varying, extension = posixpath.splitext(rest)
        if before and extension and _IS_VARYING.fullmatch(varying):
            found.append(before + extension)
    return found


def newer_than(name: str, rotated: Iterable[Rotated]) -> list[str]:
    """Returns the names of `rotated` in the family of `name` that are newer, the oldest first."""
    there = list(rotated)
    (its,) = (each for each in there if each.name == name)
    newer = [each for each in there if each.family == its.family and each.age_key > its.age_key]
    return [each.name for each in sorted(newer, key=lambda each: each.age_key)]


def _age(varying: str) -> tuple[str, tuple[int, str]]:
    if varying == "old":
        return "old", (0, "")
    if varying.isdigit() and len(varying) <= _COUNTER_DIGITS_MAX:
        return "counter", (-int(varying), "")
    return "date", (0, re.sub(r"\D", "", varying))
