"""Backups of a real daemon under load: whole, restored, killed, on another file system."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from logengine.upkeep.backup import Backup
from logengine.upkeep.verify import verify_stream
from tests.crash.rig.seed import SEED
from tests.daemon import Daemon, Producer, eventually

BACKUPS = 20
KILLS = 12
AT_ONCE = 10  # records
FILES_MAX = 40
# Everything that can happen to segments happens all the time.
BUSY = """
[log]
format = "json"
[commit]
rewrite_limit = "2KiB"
[compaction]
seal_bytes = "64KiB"
fanout = 2
[stream.app.retention]
max_bytes = "512KiB"
"""
MEMORY = Path("/dev/shm")


def contents(data: Path, stream: str) -> list[tuple[int, int]]:
    """Number and content of each record, read from a copy by the command."""
    done = subprocess.run(
        [sys.executable, "-m", "logengine", "cat", stream, "--data", str(data)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b""
    records = map(json.loads, done.stdout.splitlines())
    return [(record["_seq"], record["number"]) for record in records]


def verified(data: Path, stream: str) -> list[str]:
    return [str(finding) for finding in verify_stream(data / stream) if not finding.harmless]


def has_begun(running: subprocess.Popen[bytes], target: Path) -> bool:
    return any(target.parent.iterdir()) or running.poll() is not None


class Load:
    """A producer that sends without end; record N of the stream has the number N."""

    def __init__(self, daemon: Daemon, stream: str) -> None:
        self._producer: Producer = daemon.connect()
        self._producer.hello(producer="load", stream=stream)
        self._directory = daemon.data / stream
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acked = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            sent = self.acked + AT_ONCE
            self._producer.send(
                b"".join(
                    b'{"number":%d,"text":"%s"}\n' % (number, os.urandom(60).hex().encode())
                    for number in range(self.acked + 1, sent + 1)
                )
            )
            while self.acked < sent:
                self.acked = self._producer.answer()["ack"]
            # Merges, seals and retention keep up.
            while len(os.listdir(self._directory)) > FILES_MAX and not self._stopping.wait(0.005):
                pass


@contextmanager
def busy(make_daemon: Callable[[str], Daemon]) -> Iterator[tuple[Daemon, Load]]:
    daemon = make_daemon(BUSY)
    with Load(daemon, "app") as load:
        eventually(lambda: "segment_removed" in daemon.events(), "retention")
        yield daemon, load


@pytest.mark.disk
def test_backups_under_load_are_whole(root: Path, make_daemon: Callable[[str], Daemon]) -> None:
    with busy(make_daemon) as (daemon, load):
        for number in range(BACKUPS):
            acked = load.acked
            target = root / f"backup-{number}"
            with Backup(daemon.data, target, independent=bool(number % 2)) as backup:
                taken = backup.take("app")
                backup.finish()
            assert taken.problems == []
            assert taken.last >= acked
            assert verified(target, "app") == []
            found = contents(target, "app")
            assert found == [(seq, seq) for seq in range(taken.first, taken.last + 1)]
    daemon.cli("verify")


def test_the_command_makes_a_backup_that_can_be_verified_and_served(
    root: Path, make_daemon: Callable[[str], Daemon]
) -> None:
    target = root / "backup"
    with busy(make_daemon) as (daemon, load):
        daemon.cli("send", "-s", "web", stdin=b"one\ntwo\n")
        acked = load.acked
        done = daemon.cli("backup", str(target))
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("app: records ")
    assert lines[1].startswith("web: records 1 to 2, 1 files, ")
    assert lines[2].startswith("2 streams, ")
    assert lines[2].endswith(f": {target}")
    daemon.cli("verify", "--data", str(target))
    before = contents(target, "app")
    assert before[-1][0] >= acked
    restored = Daemon(root, data=target)
    restored.socket = root / "restored"
    try:
        restored.start()
        restored.cli("send", "-s", "app", stdin=b'{"number":0}\n')
        assert restored.stop() == 0
        last = before[-1][0]
        assert contents(target, "app") == [*before, (last + 1, 0)]
        restored.cli("verify")
    finally:
        restored.close()


def test_a_backup_that_is_killed_is_none(root: Path, make_daemon: Callable[[str], Daemon]) -> None:
    source = random.Random(SEED)
    target = root / "backups" / "one"
    target.parent.mkdir()
    command = [sys.executable, "-m", "logengine", "backup", "--copy", str(target)]
    with busy(make_daemon) as (daemon, _):
        environ = os.environ | {"LOGENGINE_DATA": str(daemon.data)}
        for _ in range(KILLS):
            running = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
            eventually(partial(has_begun, running, target), "a beginning")
            try:
                running.wait(source.random() / 20)
            except subprocess.TimeoutExpired:
                running.send_signal(source.choice([signal.SIGKILL, signal.SIGTERM]))
            running.wait()
            if target.exists():
                assert verified(target, "app") == []
                target.rename(root / "backups" / "finished")
                subprocess.run(["rm", "-r", str(root / "backups" / "finished")], check=True)
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    assert verified(target, "app") == []
    assert list(target.parent.iterdir()) == [target]


def test_a_backup_on_another_file_system_is_a_copy(
    disk_root: Path, make_daemon: Callable[[str], Daemon]
) -> None:
    with busy(make_daemon) as (daemon, load):
        device = daemon.data.stat().st_dev
        elsewhere = disk_root if disk_root.stat().st_dev != device else MEMORY
        if not elsewhere.is_dir() or elsewhere.stat().st_dev == device:
            pytest.skip("needs two file systems")
        target = elsewhere / f"logengine-backup-{os.getpid()}"
        acked = load.acked
        done = daemon.cli("backup", str(target))
    try:
        assert b"copied)" in done.stdout
        assert verified(target, "app") == []
        assert contents(target, "app")[-1][0] >= acked
    finally:
        subprocess.run(["rm", "-r", str(target)], check=True)


def test_only_the_streams_asked_for_are_backed_up(root: Path, daemon: Daemon) -> None:
    for stream in ("app", "web"):
        daemon.cli("send", "-s", stream, stdin=b"one\n")
    daemon.cli("backup", "-s", "web", str(root / "backup"))
    assert os.listdir(root / "backup") == ["web"]


def test_a_mistake_is_one_line(root: Path, daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    for arguments, said in (
        ((str(root),), "is not an empty directory"),
        ((str(daemon.data / "backup"),), "in the data directory"),
        (("-s", "web", str(root / "backup")), "no stream 'web'"),
        (("--data", str(root / "none"), str(root / "backup")), "there is no data directory"),
    ):
        failed = daemon.cli("backup", *arguments, status=1).stderr.decode()
        assert said in failed
        assert len(failed.splitlines()) == 1
    assert not (root / "backup").exists()


def test_what_is_wrong_in_the_stream_is_reported(root: Path, daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    assert daemon.stop() == 0
    (segment,) = daemon.segments("app")
    segment.write_bytes(segment.read_bytes()[:-3])
    failed = daemon.cli("backup", str(root / "backup"), status=1).stderr.decode()
    assert "is damaged" in failed
    assert "run `logengine verify app`" in failed
    assert (root / "backup" / "app" / segment.name).read_bytes() == segment.read_bytes()
