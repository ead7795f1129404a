"""The temp file that a writer fills before the rename: its name, and its behaviour after a fork."""

import io
import os
import secrets
from typing import Any

# A temp file's name begins with a dot, so that no glob for final names matches it.
TEMP_PREFIX = "."
TEMP_SUFFIX = ".tmp"
_RANDOM_BYTES = 8
# The limit of eCryptfs, the lowest of all common file systems.
_TEMP_NAME_BYTES_MAX = 143
_CHARACTER_BYTES_MAX = 4
# The bytes of a UTF-8 character after its first one.
_CONTINUING, _CONTINUING_MASK = 0b1000_0000, 0b1100_0000


def temp_name_for(name: str) -> str:
    """A unique name for a temp file that will be renamed to `name`.

    It contains as much of `name` as fits, in whole characters.
    """
    room = _TEMP_NAME_BYTES_MAX - len(TEMP_PREFIX) - 1 - 2 * _RANDOM_BYTES - len(TEMP_SUFFIX)
    if len(name) * _CHARACTER_BYTES_MAX > room:
        encoded = os.fsencode(name)
        end = min(len(encoded), room)
        # Some file systems refuse names that are not UTF-8: never split a character.
        while 0 < end < len(encoded) and encoded[end] & _CONTINUING_MASK == _CONTINUING:
            end -= 1
        name = os.fsdecode(encoded[:end])
    return f"{TEMP_PREFIX}{name}.{secrets.token_hex(_RANDOM_BYTES)}{TEMP_SUFFIX}"


class TempFile(io.FileIO):
    """A temp file that discards what a process forked meanwhile writes to it.

    A forked process has a copy of Python's buffer and flushes it when it exits: a second time, to
    a file that belongs to its parent.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._process = os.getpid()

    def write(self, data: Any) -> int:
        """Writes `data`, or as much of it as the system accepts; returns the bytes written."""
        if os.getpid() != self._process:
            return memoryview(data).nbytes
        return super().write(data)
