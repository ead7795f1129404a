"""journald's cursors: what identifies an entry, and which entries were seen. No I/O.

    s=65d2…;i=4e21;b=9b44…;m=1f3;t=6449…;x=c0ff…

`s` is a sequence, `i` the entry's number in it (hexadecimal), `b` the boot. Within a sequence and
a boot the numbers grow. After a boot journald may give numbers again that it had not brought to
the disk, which is why the boot belongs to the identity.

Source: systemd, `sd_journal_get_cursor`.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# As many numbers of one sequence are remembered one by one; of older ones, that all were seen.
_NUMBERS_MAX = 1024 * 1024
_NUMBER = re.compile(r"[0-9a-fA-F]{1,16}")


class Cursor(NamedTuple):
    """An entry's sequence, as `s=…;b=…`, and its number in it."""

    sequence: str
    number: int


def parse_cursor(text: str) -> Cursor | None:
    """The cursor that `text` is; None if it has no `s` or no `i`."""
    parts = dict(part.partition("=")[::2] for part in text.split(";"))
    number = parts.get("i", "")
    if "s" not in parts or not _NUMBER.fullmatch(number):
        return None
    return Cursor(f"s={parts['s']};b={parts.get('b', '')}", int(number, 16))


class SeenEntries:
    """Which entries of a journal were seen: of each sequence all up to a number, and others.

    8 bytes for each entry; at most 8 MiB for a sequence.
    """

    def __init__(self, up_to: Mapping[str, int]) -> None:
        self._up_to = dict(up_to)
        self._ascending: dict[str, array[int]] = {}
        self._others: set[Cursor] = set()  # those that came after a higher number

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
        """Takes note of an entry that is not in here."""
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
    """`up_to` with `cursors` seen too: all up to the highest of each sequence.

    Of more than `sequences_max` sequences those are left out that are longest without an entry.
    """
    highest = dict(up_to)
    for sequence, number in cursors:
        highest[sequence] = max(number, highest.pop(sequence, 0))
    for sequence in list(highest)[: max(0, len(highest) - sequences_max)]:
        del highest[sequence]
    return highest
