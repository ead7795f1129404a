"""A bad sector beneath one file, for this process and those that it starts."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from tests.bad_disk.sitecustomize import failing


@contextmanager
def bad_sector(file: Path) -> Iterator[None]:
    """Every read of the file is an EIO, until the block ends or another file has its name.

    Processes started in the block never read it, even if it moves.
    """
    mode = stat.S_IMODE(file.stat().st_mode)
    file.chmod(mode | stat.S_ISVTX)
    paths = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    with (
        patch.object(os, "pread", failing(os.pread)),
        patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(filter(None, paths))}),
    ):
        yield
        with suppress(FileNotFoundError):
            file.chmod(mode)
