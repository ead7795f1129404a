"""Sizes, durations and file modes as people write them in a configuration."""

import re
from typing import TYPE_CHECKING

KiB = 1024
MiB = 1024 * KiB

if TYPE_CHECKING:
    # Settings made in code use plain numbers.
    Size = int
    Duration = float
    RecordsPerSecond = int
else:

    class Size(int):
        """Bytes, written as `64KiB`."""

    class Duration(float):
        """Seconds, written as `250ms`."""

    class RecordsPerSecond(int):
        """A number, 0 for no limit."""


SIZE_BYTES = {
    "": 1,
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
}
DURATION_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
# Enough digits for every allowed value; more would only cost time, or exceed a float.
_QUANTITY = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?\s*([A-Za-z]*)")
_SIZE_BYTES_MAX = 2**60
_DURATION_US_MAX = 36_525 * DURATION_US["d"]  # a century; timers do not accept more either
_COUNT = re.compile(r"[0-9]{1,10}")
_COUNT_MAX = 1_000_000_000
_PERCENT = re.compile(r"([0-9]{1,2})%")
_MODE = re.compile(r"0?[0-7]{3}")


def parse_size(text: str) -> int:
    """Parses a size such as `64KiB` or `0B` into bytes; a bare number is bytes.

    Raises `ValueError` saying what is allowed.
    """
    size_bytes = _quantity(text, SIZE_BYTES, "a size such as 64KiB, 8MiB or 1GB")
    if size_bytes > _SIZE_BYTES_MAX:
        raise ValueError(f"{text!r}; expected at most {format_size(_SIZE_BYTES_MAX)}")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """The shortest exact form that `parse_size` accepts, such as `64KiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % SIZE_BYTES[unit] == 0:
            return f"{size_bytes // SIZE_BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def format_size_rounded(size_bytes: int) -> str:
    """A size for people to read, rounded to one decimal: `1.2MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= SIZE_BYTES[unit]:
            return f"{size_bytes / SIZE_BYTES[unit]:.1f}{unit}"
    return f"{size_bytes}B"


def parse_free_space(text: str, total_bytes: int) -> int:
    """Parses a size, or a share of `total_bytes` such as `5%`, into bytes.

    Raises `ValueError` saying what is allowed.
    """
    if not text.endswith("%"):
        return parse_size(text)
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r}; expected a size such as 2GiB, or a share from 0% to 99%")
    return total_bytes * int(match[1]) // 100


def parse_duration(text: str) -> float:
    """Parses a duration such as `250ms` or `30d` into seconds, to the microsecond.

    Raises `ValueError` saying what is allowed.
    """
    duration_us = _quantity(text, DURATION_US, "a duration such as 250ms, 10s, 5m, 2h or 30d")
    if duration_us > _DURATION_US_MAX:
        raise ValueError(f"{text!r}; expected at most {format_duration(_DURATION_US_MAX / 1e6)}")
    return duration_us / 1e6


def format_duration(duration_s: float) -> str:
    """The shortest form that `parse_duration` accepts, exact to the microsecond: `250ms`."""
    # In integers: a float product is off by one for some durations of decades.
    seconds, per = float(duration_s).as_integer_ratio()
    duration_us = (2 * seconds * 1_000_000 + per) // (2 * per)
    if not duration_us:
        return "0ms"
    for unit in ("w", "d", "h", "m", "s", "ms"):
        if duration_us % DURATION_US[unit] == 0:
            return f"{duration_us // DURATION_US[unit]}{unit}"
    return f"{duration_us}us"


def parse_count(text: str) -> int:
    """Parses a number up to a billion. Raises `ValueError` saying what is allowed."""
    if not _COUNT.fullmatch(text) or int(text) > _COUNT_MAX:
        raise ValueError(f"{text!r}; expected a whole number from 0 to {_COUNT_MAX}")
    return int(text)


def parse_mode(text: str) -> int:
    """Parses octal permissions such as `0666` into a mode for chmod.

    Raises `ValueError` saying what is allowed.
    """
    if not _MODE.fullmatch(text):
        raise ValueError(f"{text!r}; expected permissions in octal such as 0660")
    return int(text, 8)


def format_mode(mode: int) -> str:
    """The form that `parse_mode` accepts: `0666`."""
    return f"{mode:04o}"


def _quantity(text: str, units: dict[str, int], expected: str) -> int:
    """The value of `text` in the smallest unit, rounded to a whole number."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[3] not in units:
        named = ", ".join(unit for unit in units if unit)
        raise ValueError(f"{text!r}; expected {expected} (units: {named})")
    whole, part, unit = match[1], match[2] or "", match[3]
    scale = int("1" + "0" * len(part))
    return (int(whole + part) * units[unit] + scale // 2) // scale
