"""A command alone with a data directory."""

import os
from pathlib import Path

import pytest

from logengine.disk.crash_mark import CRASH_MARK_NAME
from logengine.errors import DataDirectoryLocked
from logengine.upkeep.exclusive_access import exclusive_access

NOBODY = 65534


def test_only_one_is_alone_with_a_data_directory(tmp_path: Path) -> None:
    stop_it = pytest.raises(DataDirectoryLocked, match="stop it")
    with exclusive_access(tmp_path), stop_it, exclusive_access(tmp_path):
        pass
    with exclusive_access(tmp_path):
        pass


def test_only_what_did_not_end_well_leaves_a_mark(tmp_path: Path) -> None:
    with exclusive_access(tmp_path):
        assert (tmp_path / CRASH_MARK_NAME).exists()
    assert not (tmp_path / CRASH_MARK_NAME).exists()
    with pytest.raises(OSError, match="injected"), exclusive_access(tmp_path) as names:
        names.note_failed_sync("app")
        raise OSError("injected")
    with exclusive_access(tmp_path) as names:
        assert names.unsynced == {"app"}
    # What a daemon would write again is still to be written again.
    assert (tmp_path / CRASH_MARK_NAME).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can work as somebody else")
def test_what_root_writes_is_the_owners_of_the_data_directory(root: Path) -> None:
    root.chmod(0o755)
    data = root / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    with exclusive_access(data):
        (data / "file").write_bytes(b"")
    found = (data / "file").stat()
    assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())
