"""The file that a writer writes to until it is whole: its name, and what a fork does to it."""

import io
import os
import secrets
from typing import Any

# A temp begins with a dot, so that no glob of the final names meets it.
TEMP_PREFIX = "."
TEMP_SUFFIX = ".tmp"
_RANDOM_BYTES = 8
# eCryptfs takes no longer ones; nothing that is met takes less.
_TEMP_NAME_BYTES_MAX = 143
_CHARACTER_BYTES_MAX = 4
# The bytes of a UTF-8 character behind its first one.
_CONTINUING, _CONTINUING_MASK = 0b1000_0000, 0b1100_0000


def temp_name_for(name: str) -> str:
    """A name that no other file has, for what is to be called `name`.

    As much of `name` is in it as there is room for, and no half of a character.
    """
    room = _TEMP_NAME_BYTES_MAX - len(TEMP_PREFIX) - 1 - 2 * _RANDOM_BYTES - len(TEMP_SUFFIX)
    if len(name) * _CHARACTER_BYTES_MAX > room:
        encoded = os.fsencode(name)
        end = min(len(encoded), room)
        # Some file systems refuse what is no UTF-8: a character is kept whole or left out.
        while 0 < end < len(encoded) and encoded[end] & _CONTINUING_MASK == _CONTINUING:
            end -= 1
        name = os.fsdecode(encoded[:end])
    return f"{TEMP_PREFIX}{name}.{secrets.token_hex(_RANDOM_BYTES)}{TEMP_SUFFIX}"


class TempFile(io.FileIO):
    """The temp; what a process writes that was forked meanwhile goes nowhere.

    That process has a copy of Python's buffer, and writes it out at its end: into a file that
    is another one's, and a second time.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._process = os.getpid()

    def write(self, data: Any) -> int:
        """Writes `data`, or as much of it as the system takes; how many bytes that was."""
        if os.getpid() != self._process:
            return memoryview(data).nbytes
        return super().write(data)
