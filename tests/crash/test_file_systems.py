"""Real file systems beneath a real daemon: cut off, full, out of inodes, read-only.

Withstands: a power cut of ext4 and xfs under load, whose journal the kernel replays; a disk
that somebody else fills; the last inode taken; a disk that turns read-only, for a while or
because the file system found itself damaged.
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rig.image import Image, image, missing
from tests.crash.rig.load import Load
from tests.crash.rig.seed import SEED
from tests.daemon import PROGRAM, Daemon, Producer, eventually

PRODUCERS = [("app", "p0"), ("app", "p1"), ("web", "p2"), ("audit", "p3")]
# Trusts the disk's cache, as a daemon without any fsync would.
WITHOUT_FSYNC = (
    "-c",
    "import os; os.fsync = lambda _: None; from logengine.cli import main; main()",
)
CUTS_PER_IMAGE = 15
MAX_PENDING = 1024 * 1024
CONFIG = """
[commit]
retry_max = "200ms"
[limits]
max_record = "64KiB"
max_pending = "1MiB"
max_pending_stream = "512KiB"
[quota]
keep_free = "0B"  # the disk itself is to stop senders
"""


@pytest.fixture(params=["ext4", "xfs"])
def kind(request: pytest.FixtureRequest) -> str:
    if reason := missing(request.param):
        pytest.skip(reason)
    return str(request.param)


@dataclass
class CutReport:
    """How often a file system was cut off, and what was missed afterwards."""

    cuts: int = 0
    acked: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.cuts} cuts, {self.acked:,} records acknowledged"


def cut_under_load(
    kind: str, source: random.Random, cuts: int, program: tuple[str, ...] = PROGRAM
) -> CutReport:
    """Cuts one file system off again and again while a daemon works on it."""
    report = CutReport()
    load = Load(PRODUCERS, source)
    with image(kind) as disk, tempfile.TemporaryDirectory(prefix="le-") as root:
        data = disk.directory / "data"
        daemon = Daemon(Path(root), data=data, program=program)
        while report.cuts < cuts and not report.violations:
            daemon.start()
            load.start(daemon.socket)
            time.sleep(source.uniform(0.02, 0.3))
            disk.cut_off()
            daemon.kill()
            load.join()
            disk.unmount()
            disk.mount()
            report.cuts += 1
            report.violations += load.violations(data)
    report.acked = load.acked
    return report


def test_a_cut_off_disk_holds_what_was_acknowledged(kind: str) -> None:
    report = cut_under_load(kind, random.Random(SEED), cuts=4)
    print(kind, report)
    assert not report.violations
    assert report.acked > 0


def test_a_daemon_that_does_not_fsync_is_found_out(kind: str) -> None:
    report = cut_under_load(kind, random.Random(SEED), 20, WITHOUT_FSYNC)
    assert report.violations
    print(f"{kind}: after {report.cuts} cuts: {report.violations[0]}")


@pytest.mark.campaign
def test_disks_cut_off_a_hundred_times_hold_what_was_acknowledged(kind: str) -> None:
    total = CutReport()
    for life in range(12):
        report = cut_under_load(kind, random.Random(SEED + life), CUTS_PER_IMAGE)
        assert not report.violations
        total.cuts += report.cuts
        total.acked += report.acked
    print(f"{kind} cut off: {total}")


# What becomes of the disk, and what the daemon's log says of it.
TROUBLES: dict[str, tuple[Callable[[Image], Any], str]] = {
    "full": (Image.without_space, "No space left"),
    "no inodes": (Image.without_inodes, "No space left"),
    "read-only": (Image.read_only, "Read-only"),
}


@pytest.fixture
def disk(kind: str) -> Iterator[Image]:
    # Few enough inodes that they can all be taken; xfs makes them as it goes.
    with image(kind, *(["-N", "1024"] if kind == "ext4" else [])) as disk:
        yield disk


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_disk_that_takes_no_more_loses_nothing(
    disk: Image, kind: str, root: Path, trouble: str, *, killed: bool
) -> None:
    if (kind, trouble) == ("xfs", "no inodes"):
        pytest.skip("xfs runs out of inodes only when it runs out of space")
    befall, reason = TROUBLES[trouble]
    daemon = Daemon(root, CONFIG, data=disk.directory / "data")
    with contextlib.closing(daemon):
        daemon.start()
        sender = daemon.connect()
        assert sender.hello(stream="app", producer="p")["next"] == 1
        lines = [b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 1000) for n in range(8000)]
        sender.send(b"".join(lines[:20]))
        sender.wait_for_ack(20)
        with befall(disk):
            rest = send_until_blocked(sender, b"".join(lines[20:]))
            eventually(lambda: reason in daemon.log_path.read_text(), "the log to say why")
            failures = [entry for entry in daemon.log() if entry["event"] == "commit_failed"]
            assert failures[-1]["waiting_records"] > 0
            assert reason in failures[-1]["error"]
            assert len(rest) > sum(map(len, lines)) - 3 * MAX_PENDING
            assert daemon.peak_memory_bytes() < 128 * 1024 * 1024
            # What is there can be read, and somebody new is greeted.
            assert len(daemon.cli("cat", "app").stdout.splitlines()) >= 20
            assert daemon.connect().hello(stream="web", producer="other")["next"] == 1
            if killed:
                daemon.kill()
                before = daemon.events().count("commit_failed")
                daemon.start()
                sender = daemon.connect()
                sender.send(b'{"_hello":1,"stream":"app","producer":"p"}\n')
                if trouble == "read-only":
                    # What a failed sync may have lost cannot be written again before.
                    eventually(
                        lambda: daemon.events().count("commit_failed") > before,
                        "the log to say why",
                    )
                else:
                    rest = send_unacked_until_blocked(sender, lines)
        if killed and trouble == "read-only":
            rest = send_unacked_until_blocked(sender, lines)
        sender.send(rest)
        sender.wait_for_ack(len(lines))
        assert [value["n"] for value in daemon.values("app")] == list(range(len(lines)))
        assert daemon.logged("stream_recovered")
        daemon.cli("verify")
        assert daemon.stop() == 0


def test_a_file_system_that_finds_itself_damaged_loses_nothing(root: Path) -> None:
    if reason := missing("ext4"):
        pytest.skip(reason)
    with image("ext4", mount_options="errors=remount-ro") as disk:
        if not disk.can_report_an_error:
            pytest.skip("/sys is read-only")
        daemon = Daemon(root, CONFIG, data=disk.directory / "data")
        with contextlib.closing(daemon):
            daemon.start()
            sender = daemon.connect()
            sender.hello(stream="app", producer="p")
            lines = [b'{"n":%d}\n' % n for n in range(40)]
            sender.send(b"".join(lines[:20]))
            sender.wait_for_ack(20)
            disk.report_an_error()
            sender.send(b"".join(lines[20:]))
            eventually(lambda: "commit_failed" in daemon.events(), "the log to say so")
            daemon.kill()  # the file system can only be mended unmounted
            disk.unmount()
            disk.repair()
            disk.mount()
            daemon.start()
            sender = daemon.connect()
            acked = sender.hello(stream="app", producer="p")["next"] - 1
            assert acked == 20
            sender.send(b"".join(lines[acked:]))
            sender.wait_for_ack(len(lines))
            assert [value["n"] for value in daemon.values("app")] == list(range(len(lines)))
            daemon.cli("verify")
            assert daemon.stop() == 0


def send_unacked_until_blocked(sender: Producer, lines: list[bytes]) -> bytes:
    """Goes on from the welcome that is to come; what is left when nothing more is taken."""
    acked = sender.answer()["next"] - 1
    assert acked >= 20
    return send_until_blocked(sender, b"".join(lines[acked:]))


def send_until_blocked(sender: Producer, data: bytes) -> bytes:
    """Sends as much of `data` as is taken; what is left when nothing is for a second."""
    sender.socket.settimeout(1)
    try:
        while data:
            data = data[sender.socket.send(data[:65536]) :]
    except TimeoutError:
        pass
    finally:
        sender.socket.settimeout(20)
    return data
