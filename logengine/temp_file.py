"""The file that a writer writes to, through Python's buffer, until it is whole."""

import io
import os
from typing import Any


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
