"""A command alone with a data directory."""

import os
from pathlib import Path

import pytest

from logengine.errors import DataDirectoryLocked
from logengine.offline import alone_with

NOBODY = 65534


def test_only_one_is_alone_with_a_data_directory(tmp_path: Path) -> None:
    stop_it = pytest.raises(DataDirectoryLocked, match="stop it")
    with alone_with(tmp_path), stop_it, alone_with(tmp_path):
        pass
    with alone_with(tmp_path):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can work as somebody else")
def test_what_root_writes_is_the_owners_of_the_data_directory(root: Path) -> None:
    root.chmod(0o755)
    data = root / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    with alone_with(data):
        (data / "file").write_bytes(b"")
    found = (data / "file").stat()
    assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())
