"""What the daemon says of the file system that its data is on."""

import pytest

from logengine.disk.mounts import (
    Mount,
    base_of,
    mount_called,
    mount_of_path,
    parse_mounts,
    risks_of,
)

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:27 / /dev/shm rw,relatime - tmpfs tmpfs rw
42 27 7:0 / /with\040space rw,relatime shared:1 master:2 - ext4 /dev/loop0 rw,nobarrier
43 27 0:39 / /data rw,relatime - btrfs /dev/loop1 rw,space_cache=v2
44 27 0:40 / /shared rw,relatime - nfs4 host:/shared rw,vers=4.2
45 27 0:41 / /layers rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/shared/upper,workdir=/w
46 27 0:42 / /fast rw - overlay overlay rw,lowerdir=/a,upperdir=/data/upper,workdir=/w,volatile
47 27 0:43 / /container rw - overlay overlay rw,lowerdir=l,upperdir=upper,workdir=work
48 27 0:44 / /user rw - fuse.sshfs host: rw
49 43 7:3 / /data/inner rw - xfs /dev/loop3 rw
50 43 7:4 / /data/inner rw - vfat /dev/loop4 rw
51 27 7:5 / /async rw - ext4 /dev/loop5 rw,journal_checksum,journal_async_commit
not a line of it
52 27 - ext4
"""
MOUNTS = parse_mounts(MOUNTINFO)


def at(point: str) -> Mount:
    return [mount for mount in MOUNTS if mount.point == point][-1]


def risks(point: str, *, has_journal: bool | None = None) -> str:
    return "; ".join(risks_of(MOUNTS, at(point), has_journal=has_journal))


def test_lines_of_another_shape_are_left_out() -> None:
    assert [mount.mount_id for mount in MOUNTS] == [22, 27, 30, *range(42, 52)]
    assert mount_called(MOUNTS, 43) == at("/data")
    assert mount_called(MOUNTS, 99) is None


def test_a_path_with_a_space_is_read_as_it_is() -> None:
    assert at("/with space").device == "7:0"


@pytest.mark.parametrize(
    ("path", "mount_id"),
    [("/", 27), ("/database", 27), ("/data", 43), ("/data/upper", 43), ("/data/inner/x", 50)],
)
def test_the_mount_of_a_path_is_the_nearest_and_the_last(path: str, mount_id: int) -> None:
    found = mount_of_path(MOUNTS, path)
    assert found is not None
    assert found.mount_id == mount_id


@pytest.mark.parametrize(
    ("point", "what"),
    [
        ("/dev/shm", "memory"),
        ("/shared", "network"),
        ("/layers", "network"),
        ("/fast", "volatile"),
        ("/user", "FUSE"),
        ("/with space", "nobarrier"),
        ("/async", "journal_async_commit"),
        ("/data/inner", "no journal"),
    ],
)
def test_what_is_known_to_break_the_promise_is_named(point: str, what: str) -> None:
    assert what in risks(point, has_journal=True)


def test_an_ext4_is_safe_with_a_journal_and_said_not_to_be_only_where_that_is_known() -> None:
    assert "no journal" in risks("/", has_journal=False)
    assert risks("/", has_journal=True) == ""
    assert risks("/", has_journal=None) == ""


def test_what_is_not_known_to_be_unsafe_is_not_said_to_be() -> None:
    assert risks("/data") == ""
    # Its upper directory is somewhere outside of the container.
    assert risks("/container") == ""
    assert base_of(MOUNTS, at("/container")) == at("/container")


def test_overlays_upon_each_other_end() -> None:
    loop = Mount(1, "0:1", "/o", "overlay", frozenset({"upperdir=/o/upper"}))
    assert base_of([loop], loop) == loop
