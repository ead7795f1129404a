"""Retention, by the daemon and by the command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from logengine.disk.crash_mark import CRASH_MARK_NAME, read_boot_id
from tests.daemon import Daemon, eventually

SEALING = """
[commit]
rewrite_limit = "1KiB"
[compaction]
seal_bytes = "4KiB"
fanout = 2
"""
# A clock that is as many seconds off as a file says.
SHIFTED = """
import pathlib, time
real, shift = time.time_ns, pathlib.Path({path!r})
time.time_ns = lambda: real() + int(shift.read_text()) * 1_000_000_000
time.time = lambda: time.time_ns() / 1e9
from logengine.cli import main
main()
"""
# A disk that fails the sync after the first removal.
FAILING = """
import errno
from logengine.disk.directory import Directory
from logengine.disk.durable_names import DurableNames
unlink, sync, removed = Directory.unlink, DurableNames.sync, []
def noted(self, name):
    unlink(self, name)
    removed.append(name)
def failing(self, directory):
    if removed:
        raise OSError(errno.EIO, "injected", directory.name)
    sync(self, directory)
Directory.unlink, DurableNames.sync = noted, failing
from logengine.cli import main
main()
"""
HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S
ONE_SEAL = "[stream.app.retention]\nmax_bytes = 1\n"


def send(daemon: Daemon, count: int) -> None:
    for number in range(count):
        lines = b"".join(b"record %d of %d %s\n" % (n, number, b"x" * 99) for n in range(50))
        daemon.cli("send", "-s", "app", stdin=lines)


def sealed(daemon: Daemon) -> list[Path]:
    return sorted((daemon.data / "app").glob("*.zst"))


def has_seals(daemon: Daemon, count: int) -> bool:
    return len(sealed(daemon)) >= count


def sequence_numbers(daemon: Daemon) -> list[int]:
    read = daemon.cli("cat", "app", "--format", "json")
    return [json.loads(line)["_seq"] for line in read.stdout.splitlines()]


def stopped_with_seals(make_daemon: Callable[[str], Daemon]) -> Daemon:
    daemon = make_daemon(SEALING)
    send(daemon, 6)
    eventually(lambda: len(sealed(daemon)) >= 4, "some seals")
    assert daemon.stop() == 0
    return daemon


def test_the_daemon_removes_the_oldest_and_numbers_go_on(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(SEALING + ONE_SEAL)
    send(daemon, 6)
    eventually(lambda: "segment_removed" in daemon.events(), "a removal")
    eventually(lambda: len(sealed(daemon)) == 1, "one seal")
    assert daemon.stop() == 0
    seqs = sequence_numbers(daemon)
    assert seqs == list(range(seqs[0], 301))
    assert seqs[0] > 1
    daemon.cli("verify")
    daemon.start()
    daemon.cli("send", "-s", "app", stdin=b"one more\n")
    assert sequence_numbers(daemon)[-1] == 301


def test_a_dry_run_says_what_would_go_and_the_command_does_it(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = stopped_with_seals(make_daemon)
    before = sealed(daemon)
    daemon.config.write_text(ONE_SEAL)
    arguments = ("retain", "--config", str(daemon.config), "--data", str(daemon.data))
    dry = daemon.cli(*arguments, "--dry-run").stdout.decode().splitlines()
    assert sealed(daemon) == before
    assert [line.split(":")[1].split(",")[0].strip() for line in dry[:-1]] == [
        path.name for path in before[:-1]
    ]
    assert dry[-1].startswith(f"{len(before) - 1} segments to be removed, ")
    done = daemon.cli(*arguments).stdout.decode().splitlines()
    assert done[:-1] == dry[:-1]
    assert sealed(daemon) == before[-1:]
    daemon.cli("verify")
    assert daemon.cli(*arguments).stdout == b"0 segments removed, 0B\n"


def test_a_stream_whose_directory_could_not_be_synced_in_this_boot_is_left_alone(
    root: Path, make_daemon: Callable[[str], Daemon]
) -> None:
    daemon = stopped_with_seals(make_daemon)
    before = sealed(daemon)
    (daemon.data / CRASH_MARK_NAME).write_text(f"boot {read_boot_id()}\nunsynced app\n")
    (root / "retain.toml").write_text(ONE_SEAL)
    command = ("retain", "--config", str(root / "retain.toml"), "--data", str(daemon.data))
    assert b"app: not changed until the next boot" in daemon.cli(*command).stdout
    assert sealed(daemon) == before
    (daemon.data / CRASH_MARK_NAME).write_text("boot before-this-one\nunsynced app\n")
    daemon.cli(*command)
    assert len(sealed(daemon)) == 1


def test_what_a_registered_cursor_has_not_passed_stays(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = stopped_with_seals(make_daemon)
    before = sealed(daemon)
    (daemon.data / ".cursors").mkdir()
    (daemon.data / ".cursors" / "relay").write_text(f"app:{int(before[1].name[:20]) - 1}\n")
    daemon.config.write_text(ONE_SEAL)
    arguments = ("retain", "--config", str(daemon.config), "--data", str(daemon.data))
    daemon.cli(*arguments)
    assert sealed(daemon) == before[1:]
    (daemon.data / ".cursors" / "relay").write_text("nonsense")
    failed = daemon.cli(*arguments, status=1).stderr.decode()
    assert "'nonsense' is no cursor" in failed
    assert sealed(daemon) == before[1:]
    disk_bytes = shutil.disk_usage(daemon.data).total  # always more than is free
    daemon.config.write_text(f'[retention]\nkeep_free = "{disk_bytes}B"\n')
    (daemon.data / ".cursors" / "relay").write_text("app:0")
    assert "not yet read by relay" in daemon.cli(*arguments).stdout.decode()
    assert sealed(daemon) == before[-1:]


def test_beside_a_running_daemon_only_a_dry_run_is_made(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    daemon.cli("retain", "--data", str(daemon.data), "--dry-run")
    failed = daemon.cli("retain", "--data", str(daemon.data), status=1).stderr.decode()
    assert "in use by a running daemon; it does this by itself" in failed
    assert len(failed.splitlines()) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root works as somebody else")
def test_root_retains_as_the_owner_of_the_data_directory(root: Path, daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    assert daemon.stop() == 0
    shutil.copytree(daemon.data, root / "owned")
    (root / "owned" / ".lock").unlink()
    for path in (root, root / "owned", *(root / "owned").rglob("*")):
        os.chown(path, 65534, 65534)
    daemon.cli("retain", "--data", str(root / "owned"))
    assert (root / "owned" / ".lock").stat().st_uid == 65534


def test_a_look_ahead_removes_nothing_and_does_not_stop_retention(root: Path) -> None:
    shift = root / "shift"
    shift.write_text("0")
    daemon = Daemon(
        root,
        SEALING + '[log]\nformat = "json"\n[retention]\nmax_age = "1h"\n',
        program=("-c", SHIFTED.format(path=str(shift))),
    )

    def retain(*options: str) -> subprocess.CompletedProcess[str]:
        arguments = ("retain", "--config", str(daemon.config), "--data", str(daemon.data))
        return subprocess.run(
            [sys.executable, *daemon.program, *arguments, *options],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    try:
        daemon.start()
        for ahead_s in (0, 73 * YEAR_S, 0):
            shift.write_text(str(ahead_s))
            before = len(sealed(daemon))
            send(daemon, 4)
            eventually(partial(has_seals, daemon, before + 2), "some seals")
        assert daemon.stop() == 0
        eventually(lambda: "clock_doubted" in daemon.events(), "clock_doubted")
        assert "segment_removed" not in daemon.events()
        assert sequence_numbers(daemon)[0] == 1

        shift.write_text(str(73 * YEAR_S))
        doubted = retain()
        assert doubted.stdout == "0 segments removed, 0B\n"
        assert "the clock is" in doubted.stderr
        assert "ahead of the time that is expected" in doubted.stderr

        shift.write_text(str(2 * HOUR_S))
        assert retain().stdout == "0 segments removed, 0B\n"
        assert retain("--trust-clock").stderr == ""
        assert len(sealed(daemon)) == 1
        daemon.cli("verify")
    finally:
        daemon.close()


def test_a_removal_that_cannot_be_synced_is_named(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = stopped_with_seals(make_daemon)
    before = sealed(daemon)
    config = daemon.config.read_text()
    daemon.config.write_text(config + ONE_SEAL)
    arguments = ("retain", "--config", str(daemon.config), "--data", str(daemon.data))
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stderr
    assert "injected" in ended.stderr
    assert sealed(daemon) == before[1:]
    assert before[0].name in ended.stdout
