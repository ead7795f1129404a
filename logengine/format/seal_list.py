"""A list of seals, to be kept where nobody who can write in the data directory can change it.

    audit 600 62620804630a5c584216bb8991c35f003625d2a9fe14da7259848463012bc09a

Each line has a stream, the number of its last sealed record, and the hash of the seal. Text in,
values out.
"""

import re
from typing import NamedTuple

from logengine.errors import InvalidSealList
from logengine.format.segment import STREAM_NAME_RULE

SEAL_HASH_RULE = "[0-9a-f]{64}"
_LINE = re.compile(f"({STREAM_NAME_RULE}) ([0-9]{{1,19}}) ({SEAL_HASH_RULE})")


class ListedSeal(NamedTuple):
    """The newest seal of a stream at some time: it proves the records up to `last`."""

    stream: str
    last: int
    hash: str

    def __str__(self) -> str:
        return f"{self.stream} {self.last} {self.hash}"


def parse_seal_list(text: str, name: str) -> dict[str, ListedSeal]:
    """Returns the last seal of each stream in a list, by stream.

    Lists may be appended to each other; empty lines do not count. Raises `InvalidSealList` for
    `name` if a line is something else, or if there is none.
    """
    seals: dict[str, ListedSeal] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InvalidSealList(
                f"{name}, line {number}: expected STREAM NUMBER HASH, from `logengine seals`"
            )
        seals[match[1]] = ListedSeal(match[1], int(match[2]), match[3])
    if not seals:
        raise InvalidSealList(f"{name} has no seals; expected the output of `logengine seals`")
    return seals
