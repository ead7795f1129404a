"""An atomic writer that is opened before it is known what it will write, and under which name."""

import os

from logengine.disk.directory import Directory
from logengine.disk.one_flush import OneFlushWriter


class EarlyWriter(OneFlushWriter):
    """Writes bytes in `directory`, which its caller keeps open until the writer is done.

    `name` is the expected one of the file. `aim_at` chooses another. An existing file of that name
    is replaced without being inspected.
    """

    def __init__(self, directory: Directory, name: str, *, permissions: int) -> None:
        super().__init__(
            directory.path_of(name),
            "wb",
            buffering=0,
            permissions=permissions,
            open_directory=lambda: directory,
        )

    @property
    def temp_name(self) -> str:
        """The name of the temp file, while it is open."""
        if self.temp_path is None:
            raise ValueError(f"{self.path}: the writer is not open")
        return os.path.basename(self.temp_path)

    def aim_at(self, name: str) -> None:
        """Makes `name` the file's name. Call it before `publish`."""
        self.path = os.path.join(os.path.dirname(self.path), name)
        self._name = name

    def _let_go(self) -> None:
        self._directory = None  # the caller's, and open
