"""What the writer of files keeps and does on real file systems, and after a cut of the power."""

import contextlib
import os
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from logengine import AtomicWriter
from logengine.disk.segment_file import list_segments
from logengine.format.segment import segment_name
from tests.crash.rig import image
from tests.crash.rig.cuts import SCRATCH

ACL = "system.posix_acl_access"
KINDS = ["ext4", "ext4 without a journal", "xfs", "btrfs", "tmpfs", "overlay on ext4"]
# owner rw-, user 1234 rw-, group r--, mask rw-, others ---
SHARED = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in [
        (1, 6, 0xFFFFFFFF),
        (2, 6, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    ]
)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(kind: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if kind == "tmpfs":
        with tempfile.TemporaryDirectory(prefix="logengine-tmpfs-", dir=SCRATCH) as directory:
            mount("-t", "tmpfs", "none", directory)
            try:
                yield Path(directory)
            finally:
                subprocess.run(["umount", directory], check=True)
        return
    disk = kind.removeprefix("overlay on ").removesuffix(" without a journal")
    if reason := image.unmountable(disk):
        pytest.skip(reason)
    options = ["-O", "^has_journal"] if "without" in kind else []
    with image.image(disk, *options) as made:
        if "overlay" not in kind:
            yield made.directory
            return
        for name in ("lower", "upper", "work", "merged"):
            (made.directory / name).mkdir()
        # What lies in the lower layer, and is copied up by nothing but the writer.
        prepare(made.directory / "lower" / "file")
        layers = ",".join(
            f"{option}={made.directory / name}"
            for option, name in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")]
        )
        mount("-t", "overlay", "overlay", "-o", layers, str(made.directory / "merged"))
        try:
            yield made.directory / "merged"
        finally:
            subprocess.run(["umount", str(made.directory / "merged")], check=True)


def prepare(path: Path) -> None:
    path.write_text("old")
    os.chown(path, 1234, 4321)
    os.setxattr(path, ACL, SHARED)
    os.setxattr(path, "user.origin", b"elsewhere")
    os.chmod(path, path.stat().st_mode | stat.S_ISUID)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replaced_file_is_to_others_what_it_was(kind: str) -> None:
    with mounted(kind) as directory:
        path = directory / "file"
        if not path.exists():
            prepare(path)
        with AtomicWriter(path) as writer:
            writer.write("new")
        assert path.read_text() == "new"
        assert os.listdir(directory) in (["file"], ["lost+found", "file"], ["file", "lost+found"])
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (1234, 4321)
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert os.getxattr(path, ACL) == SHARED
        assert os.getxattr(path, "user.origin") == b"elsewhere"


@pytest.mark.parametrize("kind", KINDS)
def test_mode_x_never_replaces(kind: str) -> None:
    with mounted(kind) as directory:
        with AtomicWriter(directory / "made", "x") as writer:
            writer.write("new")
        with pytest.raises(FileExistsError), AtomicWriter(directory / "second", "x") as writer:
            writer.write("new")
            (directory / "second").write_text("another one's")
        assert (directory / "made").read_text() == "new"
        assert (directory / "second").read_text() == "another one's"
        assert not [name for name in os.listdir(directory) if name.endswith(".tmp")]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("mode", ["w", "x"])
def test_what_was_written_and_what_it_is_to_others_outlasts_a_cut(kind: str, mode: str) -> None:
    if reason := image.missing(kind):
        pytest.skip(reason)
    with image.image(kind) as disk:
        path = disk.directory / "file"
        if mode == "w":
            prepare(path)
            os.sync()
        with AtomicWriter(path, mode) as writer:
            writer.write("new")
        disk.cut_off()
        disk.unmount()
        disk.mount()
        assert path.read_text() == "new"
        if mode == "w":
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (1234, 4321)
            assert stat.S_IMODE(status.st_mode) == 0o660
            assert os.getxattr(path, ACL) == SHARED
        assert not [name for name in os.listdir(disk.directory) if name.endswith(".tmp")]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_before_the_replace_a_cut_leaves_the_old_file_and_perhaps_a_temp(kind: str) -> None:
    if reason := image.missing(kind):
        pytest.skip(reason)
    with image.image(kind) as disk:
        path = disk.directory / "file"
        prepare(path)
        os.sync()
        writer = AtomicWriter(path)
        writer.open()
        writer.write("new")
        writer.prepare()
        disk.cut_off()
        writer.abort()
        disk.unmount()
        disk.mount()
        assert path.read_text() == "old"
        assert stat.S_IMODE(path.stat().st_mode) == 0o4660


@pytest.mark.parametrize("kind", KINDS)
def test_no_segment_is_left_out_of_a_listing_while_it_is_replaced(kind: str) -> None:
    with mounted(kind) as directory, tempfile.TemporaryDirectory(dir=directory) as stream:
        wanted = list(range(1, 31))
        for first in wanted:
            (Path(stream) / segment_name(first)).touch()
        replacing = subprocess.Popen([sys.executable, "-c", REPLACING, stream])
        try:
            for _ in range(LISTINGS):
                assert list_segments(Path(stream)) == wanted
            assert replacing.poll() is None
        finally:
            replacing.kill()
            replacing.wait()


# One listing in 160 to 500 leaves a name out on btrfs, where it is listed once.
LISTINGS = 5_000
REPLACING = """
import itertools, os, sys
os.chdir(sys.argv[1])
for first in itertools.cycle(range(1, 31)):
    open("temp", "w").close()
    os.replace("temp", f"{first:020}.ndjson")
"""
