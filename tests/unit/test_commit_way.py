"""On which file systems a commit needs one flush, and on which two."""

import struct
import subprocess
from pathlib import Path

import pytest

from logengine.disk.commit_way import CommitWay, FileSystemFacts, commit_way
from logengine.disk.directory import Directory
from logengine.disk.file_system import commit_way_at
from logengine.disk.mounts import Mount
from tests.crash.rig import block_cuts
from tests.crash.rig.recording_disk import loop_device

# As the kernel writes them for a file system that `mkfs.ext4` made.
EXT4_OPTIONS = frozenset(
    {
        *("rw", "bsddf", "nogrpid", "block_validity", "dioread_nolock", "nodiscard", "delalloc"),
        *("nowarn_on_error", "journal_checksum", "barrier", "auto_da_alloc", "user_xattr", "acl"),
        *("noquota", "resuid=0", "resgid=0", "errors=continue", "commit=5", "min_batch_time=0"),
        *("max_batch_time=15000", "i_version", "stripe=0", "data=ordered", "init_itable=10"),
        *("inode_readahead_blks=32", "max_dir_size_kb=0", "prefetch_block_bitmaps"),
    }
)


def features(compat: int = 0x103C, incompat: int = 0x22C6, ro_compat: int = 0x46B) -> bytes:
    return struct.pack("=64x3I", compat, incompat, ro_compat).ljust(232, b"\0")


def geometry(realtime_blocks: int = 0, log_start: int = 8_388_614) -> bytes:
    return struct.pack("=40xQ8xQ", realtime_blocks, log_start).ljust(112, b"\0")


def mounted(kind: str, *options: str) -> Mount:
    return Mount(27, "7:0", "/data", kind, frozenset({"rw", "relatime", *options}))


EXT4 = FileSystemFacts(
    mounted("ext4"), options=EXT4_OPTIONS, has_own_journal=True, features=features()
)
XFS = FileSystemFacts(
    mounted("xfs", "attr2", "inode64", "logbufs=8", "logbsize=32k", "noquota"), geometry=geometry()
)


@pytest.mark.parametrize("facts", [EXT4, XFS], ids=["ext4", "xfs"])
def test_ext4_with_a_journal_and_xfs_need_one_flush(facts: FileSystemFacts) -> None:
    assert commit_way(facts).flushes == 1
    assert facts.mount is not None
    assert facts.mount.kind in commit_way(facts).reason


@pytest.mark.parametrize("mode", ["data=writeback", "data=journal"])
def test_the_modes_that_were_tried_need_one_flush(mode: str) -> None:
    options = EXT4_OPTIONS - {"data=ordered"} | {mode, "nodelalloc", "dioread_lock"}
    assert commit_way(EXT4._replace(options=options)).flushes == 1


@pytest.mark.parametrize(
    "kind",
    ["ext2", "ext3", "btrfs", "overlay", "tmpfs", "nfs4", "fuse.sshfs", "fuseblk", "zfs", "f2fs"],
)
def test_every_other_file_system_needs_two(kind: str) -> None:
    way = commit_way(FileSystemFacts(mounted(kind), EXT4_OPTIONS, True, features(), geometry()))
    assert way.flushes == 2
    assert kind in way.reason


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"mount": None}, "the file system cannot be determined"),
        ({"options": None}, "options"),
        ({"has_own_journal": None}, "journal on its own device cannot be determined"),
        ({"has_own_journal": False}, "no journal on its own device"),
        ({"features": None}, "fast commits cannot be determined"),
        ({"features": b""}, "fast commits cannot be determined"),
        ({"features": features(compat=0x143C)}, "has fast commits"),
        ({"features": features(compat=0x1038)}, "no journal"),
        ({"features": features(incompat=0x2286)}, "no extents"),
        ({"features": features(incompat=0xA2C6)}, "not tried"),  # inline_data
        ({"features": features(ro_compat=0x66B)}, "not tried"),  # bigalloc
        ({"features": features(compat=0x8000103C)}, "not tried"),  # unheard of
        ({"options": EXT4_OPTIONS - {"barrier"} | {"nobarrier"}}, "without barriers"),
        ({"options": EXT4_OPTIONS - {"barrier"}}, "without barriers"),
        ({"options": EXT4_OPTIONS - {"data=ordered"}}, "mode of the journal"),
        ({"options": EXT4_OPTIONS | {"fc_debug_force"}}, "fc_debug_force"),
        ({"options": EXT4_OPTIONS | {"journal_async_commit"}}, "journal_async_commit"),
        ({"options": EXT4_OPTIONS | {"dax=always"}}, "dax=always"),
        ({"options": EXT4_OPTIONS | {"unheard_of"}}, "unheard_of"),
        ({"mount": mounted("ext4", "barrier=0")}, "barrier=0"),
        ({"mount": mounted("ext4", "lazytime")}, "lazytime"),
        ({"options": EXT4_OPTIONS | {"usrquota"}}, "usrquota"),
    ],
)
def test_an_ext4_that_was_not_tried_or_is_not_known_needs_two(
    changed: dict[str, object], why: str
) -> None:
    way = commit_way(EXT4._replace(**changed))  # type: ignore[arg-type]
    assert way.flushes == 2
    assert why in way.reason


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"geometry": None}, "cannot be determined"),
        ({"geometry": geometry(log_start=0)}, "log on another device"),
        ({"geometry": geometry(realtime_blocks=4096)}, "realtime"),
        ({"mount": mounted("xfs", "nobarrier")}, "nobarrier"),
        ({"mount": mounted("xfs", "logdev=/dev/vdb")}, "logdev"),
        ({"mount": mounted("xfs", "rtdev=/dev/vdb")}, "rtdev"),
        ({"mount": mounted("xfs", "dax=always")}, "dax"),
        ({"mount": mounted("xfs", "prjquota")}, "prjquota"),
    ],
)
def test_an_xfs_that_was_not_tried_or_is_not_known_needs_two(
    changed: dict[str, object], why: str
) -> None:
    way = commit_way(XFS._replace(**changed))  # type: ignore[arg-type]
    assert way.flushes == 2
    assert why in way.reason


def test_a_descriptor_that_the_kernel_says_nothing_of_needs_two(tmp_path: Path) -> None:
    with Directory.open(Path("/proc")) as proc:
        assert commit_way_at(proc).flushes == 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if reason := block_cuts.missing("ext4"):
        pytest.skip(reason)
    return tmp_path


@pytest.mark.parametrize(
    ("make", "kind", "options", "flushes"),
    [
        ("mkfs.ext4 -q -F", "ext4", "", 1),
        ("mkfs.ext4 -q -F", "ext4", "nobarrier", 2),
        ("mkfs.ext4 -q -F -O fast_commit", "ext4", "", 2),
        ("mkfs.ext4 -q -F -O ^has_journal", "ext4", "", 2),
        ("mkfs.ext4 -q -F -O inline_data", "ext4", "", 2),
        ("mkfs.ext4 -q -F", "ext4", "data=writeback,journal_async_commit", 2),
        ("mkfs.xfs --unsupported -q -f", "xfs", "", 1),
    ],
)
def test_real_file_systems_are_recognized(
    root: Path, make: str, kind: str, options: str, flushes: int
) -> None:
    file = root / "image"
    with file.open("wb") as made:
        made.truncate(64 * 1024 * 1024)
    subprocess.run([*make.split(), str(file)], check=True, capture_output=True)
    with (
        loop_device(file) as device,
        block_cuts._mounted(device, root, kind, options) as at,
        Directory.open(at) as directory,
    ):
        way = commit_way_at(directory)
    print(way)
    if flushes == 1 and "from 6.18 on" in way.reason:
        pytest.skip("this kernel does not say which features an ext4 has")
    assert way.flushes == flushes, way.reason


def test_a_remount_changes_the_way(root: Path) -> None:
    file = root / "image"
    with file.open("wb") as made:
        made.truncate(64 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(file)], check=True, capture_output=True)
    with (
        loop_device(file) as device,
        block_cuts._mounted(device, root, "ext4") as at,
        Directory.open(at) as directory,
    ):
        subprocess.run(["mount", "-o", "remount,nobarrier", str(at)], check=True)
        assert "without barriers" in commit_way_at(directory).reason


def test_the_way_says_how_many_flushes_it_has() -> None:
    assert CommitWay(1, "").is_short
    assert not CommitWay(2, "").is_short
