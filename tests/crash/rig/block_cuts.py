"""Cuts the power of a real file system at the level of its blocks.

A workload commits on a disk that records its writes (`recording_disk`): files, in one of several
ways (`whole_files`), or a server with its producers (`engine_work`). Then the disk is made as
it may be after a cut at any event of that record, the kernel mounts it, with its journal, and the
files are held against what was acknowledged before.

After a cut the disk has every write that a completed flush covers, and any of the later ones: all,
none, some, or parts of them that are whole sectors. A sector is never torn itself. Sectors have 512
bytes, or 4096 in half of the cuts.
"""

import bisect
import contextlib
import functools
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.crash.rig import image as image_file
from tests.crash.rig.commit_ways import Way, two_flushes
from tests.crash.rig.cuts import SCRATCH
from tests.crash.rig.recording_disk import (
    ARRIVED,
    COMPLETED,
    EVENT,
    FLUSH_FAILED,
    FLUSHED,
    loop_device,
    mount,
    recording_disk,
    unmount,
)
from tests.crash.rig.whole_files import Commit, Work, make_directories, violations

_MIB = 1024 * 1024
_SIZE_MIB = 64
_MKFS_EXT4 = "mkfs.ext4 -q -F -b 4096 -m 0 -N 512 -E lazy_itable_init=0,nodiscard"
_MKFS = {
    "ext4": f"{_MKFS_EXT4} -J size=4",
    "ext4 without a journal": f"{_MKFS_EXT4} -O ^has_journal",
    "ext4 with fast commits": f"{_MKFS_EXT4} -J size=4 -O fast_commit",
    # A size that mkfs.xfs does not support otherwise: a small log wraps, and is quickly copied.
    "xfs": "mkfs.xfs --unsupported -q -f -K",
}
_SECTORS_BYTES = (512, 4096)
_COMMITS = 120  # of each run
_FAILING_FLUSH = (20, 100)  # of one run with two flushes for each commit: more than 240
_KEPT = 0.5  # of the writes that a failed flush was to cover
_NEVER_ENDING = 1_000_000  # commits
_SHUTDOWN_MAX_S = 0.1


@dataclass
class Report:
    """How often the disk was cut off, and what was missed afterwards."""

    cuts: int = 0
    commits: int = 0
    pending_writes: int = 0
    failed_flushes: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.cuts:,} cuts of {self.commits:,} commits, "
            f"{self.pending_writes / max(1, self.cuts):.1f} writes at stake on average, "
            f"{len(self.violations)} violations"
        )


@functools.cache
def missing(kind: str) -> str | None:
    """Why no file system of that kind can be cut off here, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no FUSE"
    try:
        with tempfile.TemporaryDirectory(prefix="logengine-blocks-", dir=SCRATCH) as root:
            image = _make(Path(root), kind)
            with (
                recording_disk(image, Path(root, "log"), 0) as device,
                _mounted(device, Path(root), kind),
            ):
                return None
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        return f"no {kind} on a loop device on FUSE: {error}"
    return None


def cut_runs(
    kind: str,
    way: Way,
    seeds: Sequence[int],
    cuts: int,
    *,
    options: str = "",
    commits: int = _COMMITS,
    fails_a_flush: bool = False,
) -> Report:
    """Runs the workload under each seed and cuts each run `cuts` times, until one is violated.

    `options` are those of the mount, while the workload runs and after the cut. With
    `fails_a_flush`, one flush fails in each run, and what it was to cover is lost or not.
    """

    def work(mounted: Path, seed: int, position: Position) -> Done:
        work = Work(mounted, way, seed, commits, position)
        work.join()
        assert fails_a_flush or not work.failures, work.failures
        return Done(len(work.commits), functools.partial(_of_files, work.commits))

    return cut_work(kind, work, seeds, cuts, options=options, fails_a_flush=fails_a_flush)


# Gives the position in the disk's log now.
Position = Callable[[], int]


class Done(NamedTuple):
    """What a workload did: how many commits, and what is wrong with a disk cut off at a position.

    `violations` takes where the disk is mounted, and that position. It may write there.
    """

    commits: int
    violations: Callable[[Path, int], Iterable[str]]


# Works where a disk is mounted, under a seed, and returns when that is done.
Workload = Callable[[Path, int, Position], Done]


def cut_work(
    kind: str,
    work: Workload,
    seeds: Sequence[int],
    cuts: int,
    *,
    options: str = "",
    fails_a_flush: bool = False,
) -> Report:
    """As `cut_runs`, with any workload."""
    report = Report()
    for seed in seeds:
        failing_flush = random.Random(seed).randint(*_FAILING_FLUSH) if fails_a_flush else 0
        _cut_run(kind, work, seed, cuts, options, report, failing_flush)
        if report.violations:
            break
    return report


def _cut_run(
    kind: str,
    work: Workload,
    seed: int,
    cuts: int,
    options: str,
    report: Report,
    failing_flush: int,
) -> None:
    with tempfile.TemporaryDirectory(prefix="logengine-blocks-", dir=SCRATCH) as name:
        root = Path(name)
        before, image, log = _make_with_directories(root, kind), root / "recorded", root / "log"
        _copy(before, image)
        with (
            recording_disk(image, log, seed, failing_flush) as device,
            _mounted(device, root, kind, options) as mounted,
        ):
            # Until it is flushed, ext4's superblock of two sectors may be torn by mounting alone.
            two_flushes(mounted / "mounted", b"")
            begin = log.stat().st_size
            done = work(mounted, seed, lambda: log.stat().st_size)
            end = log.stat().st_size
        report.commits += done.commits
        events = Events(log.read_bytes()[:end])
        disk, source = Disk(before, events, seed), random.Random(seed)
        report.failed_flushes += events.failed_flushes
        points = range(events.count(begin), len(events) + 1)
        for point in sorted(source.choices(points, k=cuts)):
            disk.advance(point)
            what = disk.write(root / "cut", source)
            report.cuts += 1
            report.pending_writes += len(disk.pending)
            position = events.position(point)
            for wrong in _violations(root, kind, options, done.violations, position):
                where = f"seed {seed}, cut after event {point} of {len(events)} ({what})"
                report.violations.append(f"{where}: {wrong}")
            if report.violations:
                return


def shut_down(kind: str, way: Way, seeds: Sequence[int]) -> Report:
    """Shuts a new file system down under the workload of each seed, until one is violated.

    What the kernel had not written by then never gets there.
    """
    report = Report()
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="logengine-blocks-", dir=SCRATCH) as name:
            root = Path(name)
            image = _make_with_directories(root, kind)
            with loop_device(image) as device, _mounted(device, root, kind) as mounted:
                work = Work(mounted, way, seed, _NEVER_ENDING, lambda: 0)
                time.sleep(random.Random(seed).uniform(0, _SHUTDOWN_MAX_S))
                image_file.shut_down(mounted)
                work.join()
            _copy(image, root / "cut")
            report.cuts += 1
            report.commits += sum(commit.acked is not None for commit in work.commits)
            check = functools.partial(_of_files, work.commits)
            found = _violations(root, kind, "", check, 0)
            report.violations += [f"seed {seed}: {each}" for each in found]
        if report.violations:
            break
    return report


def _of_files(commits: list[Commit], mounted: Path, position: int) -> Iterator[str]:
    return violations(mounted, commits, position)


def _violations(
    root: Path,
    kind: str,
    options: str,
    violations_at: Callable[[Path, int], Iterable[str]],
    position: int,
) -> list[str]:
    """What is wrong with the disk in the file `cut`.

    Its loop device is a new one: what the kernel remembers of another one would be taken for the
    disk's content. xfs refuses a second file system with the UUID of one that is mounted, and the
    first may still be, for another process that has a copy of the mounts.
    """
    if kind == "xfs":
        options = ",".join(filter(None, [options, "nouuid"]))
    try:
        with (
            loop_device(root / "cut") as device,
            _mounted(device, root, kind, options) as mounted,
        ):
            return list(violations_at(mounted, position))
    except OSError as error:
        return [f"cannot be read: {error}"]


class Events:
    """A disk's log, parsed."""

    def __init__(self, log: bytes) -> None:
        self._log = memoryview(log)
        self._events: list[tuple[bytes, int, int, int]] = []
        self._ends: list[int] = []
        start = 0
        while start + EVENT.size <= len(log):
            kind, number, offset, size = EVENT.unpack_from(log, start)
            stop = start + EVENT.size + (size if kind == ARRIVED else 0)
            if stop > len(log):
                break
            self._events.append((kind, number, offset, start + EVENT.size))
            self._ends.append(stop)
            start = stop

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> tuple[bytes, int, int, memoryview]:
        kind, number, offset, start = self._events[index]
        return kind, number, offset, self._log[start : self._ends[index]]

    def count(self, position: int) -> int:
        """How many whole events the log has when it is `position` bytes long."""
        return bisect.bisect_right(self._ends, position)

    @property
    def failed_flushes(self) -> int:
        """How many flushes failed."""
        return sum(kind == FLUSH_FAILED for kind, *_ in self._events)

    def position(self, count: int) -> int:
        """The length of the log, in bytes, when it had `count` events."""
        return self._ends[count - 1]


@dataclass
class _Write:
    offset: int
    data: memoryview
    is_complete: bool = False


class Disk:
    """A disk that goes through its log; `pending` are the writes that no flush covers yet."""

    def __init__(self, image: Path, events: Events, seed: int) -> None:
        self._source = random.Random(f"disk {seed}")
        self._image = image
        self._events = events
        self._point = 0
        self.pending: dict[int, _Write] = {}

    def advance(self, point: int) -> None:
        """Goes on until `point` events have happened."""
        with open(self._image, "r+b", buffering=0) as image:
            for index in range(self._point, point):
                kind, number, offset, data = self._events[index]
                if kind == ARRIVED:
                    self.pending[number] = _Write(offset, data)
                elif kind == COMPLETED:
                    self.pending[number].is_complete = True
                elif kind in (FLUSHED, FLUSH_FAILED):
                    for covered in [n for n, each in self.pending.items() if each.is_complete]:
                        write = self.pending.pop(covered)
                        if kind == FLUSHED or self._source.random() < _KEPT:
                            os.pwrite(image.fileno(), write.data, write.offset)
        self._point = max(self._point, point)

    def write(self, file: Path, source: random.Random) -> str:
        """Writes the disk as it may be after a cut to a new file; how that was drawn."""
        pieces, what = self._drawn(source)
        _copy(self._image, file)
        with open(file, "r+b", buffering=0) as cut:
            for offset, data in pieces:
                os.pwrite(cut.fileno(), data, offset)
        return what

    def _drawn(self, source: random.Random) -> tuple[list[tuple[int, memoryview]], str]:
        """Which bytes of the pending writes reach the disk, in order, and how that was drawn."""
        writes = list(self.pending.values())
        sector_bytes = source.choice(_SECTORS_BYTES)
        draw = source.choice(
            ["none", "all", "all but one", "only one", "some", "sectors", "sectors"]
        )
        if draw == "none":
            writes = []
        elif draw == "all but one" and writes:
            writes.pop(source.randrange(len(writes)))
        elif draw == "only one" and writes:
            writes = [source.choice(writes)]
        elif draw == "some":
            writes = [write for write in writes if source.random() < 0.5]
        elif draw == "sectors":
            kept = source.choice([0.1, 0.5, 0.9])
            return [
                (write.offset + start, write.data[start : start + sector_bytes])
                for write in writes
                for start in range(0, len(write.data), sector_bytes)
                if source.random() < kept
            ], f"{kept} of the sectors of {sector_bytes} bytes"
        return [(write.offset, write.data) for write in writes], draw


def _make(root: Path, kind: str) -> Path:
    image = root / "image"
    with image.open("wb") as file:
        file.truncate(_SIZE_MIB * _MIB)
    subprocess.run([*_MKFS[kind].split(), str(image)], check=True, capture_output=True)
    return image


def _make_with_directories(root: Path, kind: str) -> Path:
    image = _make(root, kind)
    with loop_device(image) as device, _mounted(device, root, kind) as mounted:
        make_directories(mounted)
    made = root / "made"
    _copy(image, made)
    return made


@contextlib.contextmanager
def _mounted(device: str, root: Path, kind: str, options: str = "") -> Iterator[Path]:
    target = root / "mounted"
    target.mkdir(exist_ok=True)
    mount(device, target, kind.split(maxsplit=1)[0], options)
    try:
        yield target
    finally:
        unmount(target)


def _copy(source: Path, target: Path) -> None:
    """Copies a sparse file to a new one, without its holes."""
    size = source.stat().st_size
    target.unlink(missing_ok=True)
    with open(source, "rb", buffering=0) as read, open(target, "xb", buffering=0) as written:
        written.truncate(size)
        stop = 0
        while True:
            try:
                start = os.lseek(read.fileno(), stop, os.SEEK_DATA)
            except OSError:
                return  # no more data
            stop = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            while start < stop:
                start += os.copy_file_range(
                    read.fileno(), written.fileno(), stop - start, start, start
                )
