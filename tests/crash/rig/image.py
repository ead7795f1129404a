"""A file system of its own in a file, mounted through a loop device; it can be cut off.

Needs root, loop devices and the `mkfs` of its kind. Whoever has not got them cannot try
what a real disk does; `missing` says why.
"""

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.crash.rig.cuts import SCRATCH

# linux/fs/ext4/ext4.h and linux/fs/xfs/libxfs/xfs_fs.h: _IOR('X', 125, __u32)
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = 2
_MIB = 1024 * 1024
_MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
_SIZE_MIB = {"ext4": 64, "xfs": 320, "btrfs": 128}  # xfs takes no less than 300
_PATIENCE_S = 20


@functools.cache
def missing(kind: str) -> str | None:
    """Why no file system of that kind can be mounted and cut off here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"there is no mkfs.{kind}"
    try:
        with image(kind) as disk:
            disk.cut_off()
    except (AssertionError, OSError) as error:
        return f"no {kind} on a loop device: {error}"
    return None


@functools.cache
def unmountable(kind: str) -> str | None:
    """Why no file system of that kind can be mounted here, or None; it need not be cut off."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"there is no mkfs.{kind}"
    try:
        with image(kind):
            return None
    except (AssertionError, OSError) as error:
        return f"no {kind} on a loop device: {error}"


class Image:
    """One file system; `directory` is where it is mounted."""

    def __init__(self, root: Path, kind: str, *mkfs_options: str, mount_options: str = "") -> None:
        self.directory = root / "mounted"
        self.directory.mkdir()
        self._file = root / "image"
        self._options = ",".join(filter(None, ["loop", mount_options]))
        with self._file.open("wb") as file:
            file.truncate(_SIZE_MIB[kind] * _MIB)
        _run(*_MKFS[kind], *mkfs_options, str(self._file))
        self.mount()

    def mount(self) -> None:
        """Mounts it; the journal is replayed by the kernel."""
        _run("mount", "-o", self._options, str(self._file), str(self.directory))

    def unmount(self) -> None:
        """Takes it away, as soon as nobody uses it any more."""
        deadline = time.monotonic() + _PATIENCE_S
        while subprocess.run(
            ["umount", str(self.directory)], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, "somebody keeps the file system busy"
            time.sleep(0.01)

    def cut_off(self) -> None:
        """Cuts the power: what is not on the disk, the open journal too, never gets there."""
        shut_down(self.directory)

    def repair(self) -> None:
        """Checks the unmounted file system, so that it may be written again."""
        checked = subprocess.run(
            ["e2fsck", "-fy", str(self._file)], capture_output=True, check=False
        )
        assert checked.returncode <= 1, checked.stdout  # 1: errors were corrected

    def report_an_error(self) -> None:
        """Makes ext4 believe that it has found itself damaged."""
        self._trigger.write_text("1")

    @property
    def can_report_an_error(self) -> bool:
        """Whether the kernel lets us do that here."""
        return os.access(self._trigger, os.W_OK)

    @property
    def _trigger(self) -> Path:
        device = os.stat(self.directory).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        name = os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
        return Path(f"/sys/fs/ext4/{name}/trigger_fs_error")

    @contextlib.contextmanager
    def without_space(self) -> Iterator[None]:
        """Somebody else fills the disk to the last block."""
        filler = self.directory / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        taken = 0
        for step in (16 * _MIB, _MIB, 64 * 1024, 4096):
            with _no_more_space():
                while True:
                    os.posix_fallocate(descriptor, taken, step)
                    taken += step
        os.fsync(descriptor)
        os.close(descriptor)
        yield
        filler.unlink()

    @contextlib.contextmanager
    def without_inodes(self) -> Iterator[None]:
        """Somebody else makes empty files until there can be no more."""
        litter = self.directory / "litter"
        litter.mkdir()
        with _no_more_space():
            for number in range(1_000_000):
                (litter / str(number)).touch()
        yield
        shutil.rmtree(litter)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Somebody remounts the disk read-only, and later lets it be written again."""
        deadline = time.monotonic() + _PATIENCE_S
        while not _succeeds("mount", "-o", "remount,ro", str(self.directory)):
            assert time.monotonic() < deadline, "a file is kept open for writing"
            time.sleep(0.01)
        yield
        _run("mount", "-o", "remount,rw", str(self.directory))


def shut_down(directory: Path) -> None:
    """Cuts off the file system that is mounted there. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def image(kind: str, *mkfs_options: str, mount_options: str = "") -> Iterator[Image]:
    """An empty file system until the block ends."""
    with tempfile.TemporaryDirectory(prefix="logengine-image-", dir=SCRATCH) as root:
        made = Image(Path(root), kind, *mkfs_options, mount_options=mount_options)
        try:
            yield made
        finally:
            made.unmount()


@contextlib.contextmanager
def _no_more_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
