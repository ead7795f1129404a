"""journald's cursors: the identity of an entry, and which entries were seen. No I/O.

    s=65d2…;i=4e21;b=9b44…;m=1f3;t=6449…;x=c0ff…

`s` is a sequence, `i` the entry's number in it (hexadecimal), `b` the boot. The numbers increase
within a sequence and a boot. After a boot, journald may reuse numbers that it had not written to
disk, so the boot is part of the identity.

Source: systemd, `sd_journal_get_cursor`.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# At most this many numbers of a sequence are remembered singly; all older ones count as seen.
_NUMBERS_MAX = 1024 * 1024
_NUMBER = re.compile(r"[0-9a-fA-F]{1,16}")


class Cursor(NamedTuple):
    """An entry's sequence, as `s=…;b=…`, and its number in it."""

    sequence: str
    number: int


def parse_cursor(text: str) -> Cursor | None:
    """Returns the cursor in `text`; None if it has no `s` or no `i`."""
    parts = dict(part.partition("=")[::2] for part in text.split(";"))
    number = parts.get("i", "")
    if "s" not in parts or not _NUMBER.fullmatch(number):
        return None
    return Cursor(f"s={parts['s']};b={parts.get('b', '')}", int(number, 16))


class SeenEntries:
    """Which entries of a journal were seen: all up to a number of each sequence, and single ones.

    Takes 8 bytes per entry, at most 8 MiB per sequence.
    """

    def __init__(self, up_to: Mapping[str, int]) -> None:
        self._up_to = dict(up_to)
        self._ascending: dict[str, array[int]] = {}
        self._others: set[Cursor] = set()  # entries that came after a higher number

    def __contains__(self, cursor: Cursor) -> bool:
        if cursor.number <= self._up_to.get(cursor.sequence, -1):
            return True
        numbers = self._ascending.get(cursor.sequence)
        if not numbers or cursor.number > numbers[-1]:
            return False
        return numbers[bisect_right(numbers, cursor.number) - 1] == cursor.number or (
            cursor in self._others
        )

    def add(self, cursor: Cursor) -> None:
        """Adds an entry that is not in here yet."""
        numbers = self._ascending.setdefault(cursor.sequence, array("Q"))
        if numbers and cursor.number < numbers[-1]:
            self._others.add(cursor)
            return
        numbers.append(cursor.number)
        if len(numbers) > _NUMBERS_MAX:
            self._forget_half(cursor.sequence, numbers)

    def _forget_half(self, sequence: str, numbers: "array[int]") -> None:
        half = len(numbers) // 2
        self._up_to[sequence] = numbers[half - 1]
        del numbers[:half]
        self._others = {
            each
            for each in self._others
            if each.sequence != sequence or each.number > self._up_to[sequence]
        }


def highest_numbers(
    up_to: Mapping[str, int], cursors: Iterable[Cursor], sequences_max: int
) -> dict[str, int]:
    """Returns `up_to` raised to the highest of `cursors` in each sequence.

    If there are more than `sequences_max` sequences, drops those without an entry for longest.
    """
    highest = dict(up_to)
    for sequence, number in cursors:
        highest[sequence] = max(number, highest.pop(sequence, 0))
    for sequence in list(highest)[: max(0, len(highest) - sequences_max)]:
        del highest[sequence]
    return highest
