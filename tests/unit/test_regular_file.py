"""Which files are opened, and in whose directories."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from logengine.disk.regular_file import (
    check_subdirectory,
    open_at_path,
    open_regular_file,
    read_whole,
)
from logengine.errors import UnexpectedFile

OWNER, OTHER = 1000, 1001
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def opened(directory: int | None, path: Path, flags: int = os.O_RDONLY) -> None:
    name = path.name if directory is not None else os.fspath(path)
    os.close(open_regular_file(directory, name, flags, 0, os.fspath(path)))


def is_a_fifo(path: Path) -> None:
    os.mkfifo(path)


def is_a_link(path: Path) -> None:
    path.with_name("target").write_text("x")
    path.symlink_to("target")


def is_a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def is_a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(path))


def is_a_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.timeout(120)  # a FIFO that is waited for would hold up the test
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (is_a_fifo, "a FIFO"),
        (is_a_link, "a symbolic link"),
        (is_a_link_to_a_device, "a symbolic link"),
        (is_a_socket, "a socket"),
        (is_a_directory, "a directory"),
    ],
)
def test_only_a_regular_file_is_opened(
    directory: int, tmp_path: Path, make: object, kind: str, flags: int
) -> None:
    path = tmp_path / "it"
    assert callable(make)
    make(path)
    before = len(os.listdir("/proc/self/fd"))
    for within in (directory, None):
        with pytest.raises(UnexpectedFile, match=f"it is {kind}, expected a regular file"):
            opened(within, path, flags)
    assert len(os.listdir("/proc/self/fd")) == before, "what was refused is closed"


@only_root
@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.parametrize(
    ("owner", "links", "is_opened"),
    [
        (OWNER, 1, True),
        (OWNER, 2, True),
        (0, 1, True),
        (0, 2, False),  # the owner of the directory may have made the link
        (OTHER, 1, False),
        (OTHER, 2, False),
    ],
)
def test_in_the_directory_of_another_user_a_file_must_be_that_users_or_roots(
    directory: int, tmp_path: Path, owner: int, links: int, is_opened: bool, by_path: bool
) -> None:
    os.fchown(directory, OWNER, OWNER)
    path = tmp_path / "it"
    path.write_text("x")
    os.chown(path, owner, owner)
    if links == 2:
        path.with_name("other").hardlink_to(path)
    within = None if by_path else directory
    if is_opened:
        opened(within, path)
    else:
        with pytest.raises(UnexpectedFile, match=f"it belongs to user {owner}"):
            opened(within, path)


@only_root
@pytest.mark.parametrize(("owner", "is_used"), [(OWNER, True), (0, True), (OTHER, False)])
def test_in_the_directory_of_another_user_a_directory_must_be_that_users_or_roots(
    directory: int, tmp_path: Path, owner: int, is_used: bool
) -> None:
    os.fchown(directory, OWNER, OWNER)
    below = tmp_path / "below"
    below.mkdir()
    os.chown(below, owner, owner)
    descriptor = os.open(below, os.O_RDONLY)
    try:
        if is_used:
            check_subdirectory(descriptor, directory, os.fspath(below))
        else:
            with pytest.raises(UnexpectedFile, match=f"it belongs to user {OTHER}"):
                check_subdirectory(descriptor, directory, os.fspath(below))
    finally:
        os.close(descriptor)


@only_root
def test_in_its_own_directory_a_user_may_have_files_of_anybody(
    directory: int, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    path.write_text("x")
    path.with_name("other").hardlink_to(path)
    os.chown(path, OTHER, OTHER)
    opened(directory, path)


def test_a_file_that_should_be_small_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"x" * 100)
    descriptor = open_at_path(os.fspath(path), os.O_RDONLY)
    try:
        assert read_whole(descriptor, 100, "it") == b"x" * 100
        with pytest.raises(UnexpectedFile, match="it has more than 99 bytes"):
            read_whole(descriptor, 99, "it")
    finally:
        os.close(descriptor)
