"""Sizes, durations and file modes as people write them in a configuration."""

import re

_SIZE_BYTES = {
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
_DURATION_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_MODE = re.compile(r"0?[0-7]{3}")


def parse_size(text: str) -> int:
    """The bytes that `text`, such as `64KiB` or `0B`, stands for.

    Raises `ValueError` saying what is allowed.
    """
    return round(_quantity(text, _SIZE_BYTES, "a size such as 64KiB, 8MiB or 1GB"))


def format_size(size_bytes: int) -> str:
    """The shortest exact form that `parse_size` reads, such as `64KiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_BYTES[unit] == 0:
            return f"{size_bytes // _SIZE_BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def format_size_rounded(size_bytes: int) -> str:
    """A size for reading, with three digits or so: `1.2MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= _SIZE_BYTES[unit]:
            return f"{size_bytes / _SIZE_BYTES[unit]:.1f}{unit}"
    return f"{size_bytes}B"


def parse_duration(text: str) -> float:
    """The seconds that `text`, such as `250ms` or `30d`, stands for.

    Raises `ValueError` saying what is allowed.
    """
    return _quantity(text, _DURATION_US, "a duration such as 250ms, 10s, 5m, 2h or 30d") / 1e6


def format_duration(duration_s: float) -> str:
    """The shortest form that `parse_duration` reads, exact to the microsecond: `250ms`."""
    duration_us = round(duration_s * 1e6)
    if not duration_us:
        return "0ms"
    for unit in ("w", "d", "h", "m", "s", "ms"):
        if duration_us % _DURATION_US[unit] == 0:
            return f"{duration_us // _DURATION_US[unit]}{unit}"
    return f"{duration_us}us"


def parse_mode(text: str) -> int:
    """The permissions that `text`, such as `0666`, stands for, as chmod takes them.

    Raises `ValueError` saying what is allowed.
    """
    if not _MODE.fullmatch(text):
        raise ValueError(f"{text!r}: expected permissions in octal such as 0660")
    return int(text, 8)


def format_mode(mode: int) -> str:
    """The form that `parse_mode` reads: `0666`."""
    return f"{mode:04o}"


def _quantity(text: str, units: dict[str, int], expected: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r}: expected {expected} (units: {', '.join(units)})")
    return float(match[1]) * units[match[2]] if "." in match[1] else int(match[1]) * units[match[2]]
