"""A data directory is let go of when it cannot be taken."""

import errno
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from logengine.data_directory import LockedDirectory
from logengine.segment_file import read_header


def test_a_lock_is_given_free_where_the_directory_cannot_be_looked_at(tmp_path: Path) -> None:
    with (
        patch.object(os, "fstat", side_effect=OSError(errno.EIO, "injected")),
        pytest.raises(OSError, match="injected"),
    ):
        LockedDirectory.lock(tmp_path)
    LockedDirectory.lock(tmp_path).close()


def test_a_segment_that_cannot_be_looked_at_is_closed(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000001.ndjson").write_bytes(b"")
    before = os.listdir("/proc/self/fd")
    with (
        patch.object(os, "fstat", side_effect=OSError(errno.EIO, "injected")),
        pytest.raises(OSError, match="injected"),
    ):
        read_header(tmp_path, 1)
    assert os.listdir("/proc/self/fd") == before
