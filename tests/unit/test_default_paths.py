"""Where a sender keeps its notes if it has no home."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from logengine import default_paths
from tests.users import acting_as

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
OTHER, ANOTHER = 65534, 65533


@pytest.fixture
def places(root: Path) -> tuple[Path, Path]:
    """A directory for all users, and a home of nobody's."""
    for_all, home = root / "tmp", root / "home"
    for_all.mkdir()
    for_all.chmod(0o1777)
    home.mkdir(0o700)
    root.chmod(0o755)
    return for_all, home


def resume_directory(for_all: Path, home: Path) -> Path:
    """What another user gets."""
    with acting_as(OTHER), patch.object(default_paths, "PERSISTENT_TEMPORARY", for_all):
        return default_paths.resume_directory({"HOME": str(home)}, OTHER)


@only_root
def test_without_a_home_it_is_a_directory_of_the_users_own(places: tuple[Path, Path]) -> None:
    for_all, home = places
    own = for_all / f"logengine-{OTHER}"
    assert resume_directory(for_all, home) == own / "logengine-client" / "resume"
    assert (own.stat().st_uid, own.stat().st_mode & 0o777) == (OTHER, 0o700)
    assert resume_directory(for_all, home) == own / "logengine-client" / "resume"


@only_root
@pytest.mark.parametrize("kind", ["of another user", "writable by all", "a link"])
def test_what_others_put_there_is_not_used(places: tuple[Path, Path], kind: str) -> None:
    for_all, home = places
    planted = for_all / f"logengine-{OTHER}"
    if kind == "a link":
        planted.symlink_to(home)
        os.chown(planted, OTHER, OTHER, follow_symlinks=False)
    else:
        planted.mkdir()
        os.chown(planted, ANOTHER if kind == "of another user" else OTHER, 0)
        planted.chmod(0o777 if kind == "writable by all" else 0o755)
    assert resume_directory(for_all, home).is_relative_to(home)


@only_root
def test_a_home_that_can_be_written_to_is_used(places: tuple[Path, Path]) -> None:
    for_all, home = places
    os.chown(home, OTHER, OTHER)
    expected = home / ".local" / "state" / "logengine-client" / "resume"
    assert resume_directory(for_all, home) == expected
    assert not list(for_all.iterdir())
