"""What a value in an expression means, and a value of a record that is compared with it.

    500  -1.5  1e3        numbers
    250ms  1m30s          durations
    10MiB  1.5GB          sizes
    2026-11-20T14:00      times; local without an offset
    true  false  null
    "text"  'text'  word  text

Numbers are exact: they are decimals. A time is a timestamp as in `format.timestamp`.
"""

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Context, Decimal, InvalidOperation
from typing import Literal as Choice

from logengine.format.timestamp import format_timestamp, parse_time
from logengine.printable import excerpt
from logengine.units import DURATION_US, SIZE_BYTES

Kind = Choice["text", "number", "duration", "size", "time", "constant"]

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PART = r"([0-9]+(?:\.[0-9]+)?)\s?"
_DURATION_S = {
    "ns": Decimal("1e-9"),
    **{unit: Decimal(us) / 1_000_000 for unit, us in DURATION_US.items()},
    "µs": Decimal("1e-6"),  # the micro sign, as Go writes it, and the Greek letter
    "μs": Decimal("1e-6"),
}
_DURATION_PART = re.compile(_PART + f"({'|'.join(_DURATION_S)})(?![A-Za-zµμ])")
_SIZES = {unit.lower(): Decimal(size) for unit, size in SIZE_BYTES.items() if unit}
_SIZE = re.compile(_PART + f"({'|'.join(_SIZES)})", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_CONSTANTS = ("true", "false", "null")
# Digits of sums and products; what is written as a number is compared with all of its digits.
_CONTEXT = Context(prec=60, traps=[])

# Of a field that has a plain number of some unit, the end of its name says which.
_UNIT_IN_NAME = re.compile(r"([KMGT]i?B|[A-Z]?[a-z]+|[A-Z]+)$")
_DURATION_OF_NAME = _DURATION_S | {
    "nanos": Decimal("1e-9"),
    "micros": Decimal("1e-6"),
    "millis": Decimal("1e-3"),
    "sec": Decimal(1),
    "secs": Decimal(1),
    "seconds": Decimal(1),
    "min": Decimal(60),
    "minutes": Decimal(60),
    "hours": Decimal(3600),
}

# Seconds, milliseconds, microseconds or nanoseconds since 1970, by how many there are.
_EPOCH_UNITS_NS = ((10**17, 1), (10**14, 10**3), (10**11, 10**6), (0, 10**9))


@dataclass(frozen=True)
class Literal:
    """A value in an expression: `text` as it is written, or what is between its quotes.

    `value` is its meaning: text, a number, seconds, bytes or a timestamp.
    """

    kind: Kind
    text: str
    value: str | Decimal
    is_quoted: bool = False


def quoted(text: str) -> Literal:
    """Returns the literal of text in quotes."""
    return Literal("text", text, text, is_quoted=True)


def bare(word: str, zone: tzinfo) -> Literal:
    """Returns what a word means that is not in quotes; a time without an offset is in `zone`.

    Raises `ValueError` for what begins like a time and is none.
    """
    if word.lower() in _CONSTANTS:
        return Literal("constant", word, word.lower())
    if (number := number_of(word)) is not None:
        return Literal("number", word, number)
    if (seconds := duration_of(word)) is not None:
        return Literal("duration", word, seconds)
    if (size := size_of(word)) is not None:
        return Literal("size", word, size)
    if _DATE.match(word):
        timestamp = time_of(word, zone)
        if timestamp is None:
            raise ValueError(
                f"{excerpt(word)!r} is not a time; expected one such as 2026-11-20, "
                "2026-11-20T14:00 or 2026-11-20T14:00:00Z; put a text in quotes"
            )
        return Literal("time", word, timestamp)
    return Literal("text", word, word)


def number_of(text: str) -> Decimal | None:
    """Returns the number that `text` is, as JSON has it; None if it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return None


def duration_of(text: str) -> Decimal | None:
    """Returns the seconds of `250ms` or `1m30s`; None if `text` is no duration."""
    total = Decimal(0)
    place = 0
    while found := _DURATION_PART.match(text, place):
        part = _CONTEXT.multiply(Decimal(found[1]), _DURATION_S[found[2]])
        total = _CONTEXT.add(total, part)
        place = found.end()
    return total if place and place == len(text) else None


def size_of(text: str) -> Decimal | None:
    """Returns the bytes of `10MiB`, in any case; None if `text` is no size."""
    found = _SIZE.fullmatch(text)
    return found and _CONTEXT.multiply(Decimal(found[1]), _SIZES[found[2].lower()])


def time_of(text: str, zone: tzinfo) -> str | None:
    """Returns the timestamp of a date or time; None if `text` is none."""
    if not _DATE.match(text):
        return None
    try:
        # Python's logging writes a comma before the milliseconds.
        return parse_time(text.replace(",", "."), datetime(2000, 1, 1, tzinfo=zone))
    except ValueError:
        return None


def time_of_number(number: Decimal) -> str | None:
    """Returns the timestamp of a time since 1970; None outside the calendar."""
    if not 0 <= number < 10**20:
        return None
    unit_ns = next(unit for least, unit in _EPOCH_UNITS_NS if number >= least)
    try:
        return format_timestamp(int(number * unit_ns))
    except (OverflowError, ValueError):
        return None


def in_seconds(number: Decimal, field: str) -> Decimal:
    """Returns the seconds of a plain number in a field whose name may end with its unit."""
    return _CONTEXT.multiply(number, _unit(field, _DURATION_OF_NAME))


def in_bytes(number: Decimal, field: str) -> Decimal:
    """Returns the bytes of a plain number in a field whose name may end with its unit."""
    return _CONTEXT.multiply(number, _unit(field, _SIZES))


def _unit(field: str, units: dict[str, Decimal]) -> Decimal:
    found = _UNIT_IN_NAME.search(field)
    return units.get(found[1].lower(), Decimal(1)) if found else Decimal(1)
