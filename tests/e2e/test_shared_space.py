"""A small file system that users of a real daemon fill: each is stopped by its own share.

Withstands: one user or two that fill it, with one stream or a thousand, and another program.
"""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rig.image import image, missing
from tests.daemon import PATIENCE_S, Daemon, Producer, eventually
from tests.users import acting_as

MIB = 1024 * 1024
SIZE_MIB = 64
# A quarter of 64 MiB: 4 of these 16 are root's reserve, and 12 are shared out.
CONFIG = """
reserve = "1MiB"
[commit]
retry_max = "200ms"
[limits]
max_record = "64KiB"
max_pending = "1MiB"
max_pending_stream = "512KiB"
[quota]
keep_free = "25%"
"""
# Merges and seals take space for a while, and give back more: then shares grow again.
WITHOUT_COMPACTION = "[compaction]\nenabled = false\n"
ANN, BOB, EVE = 1000, 1001, 1002
CHUNK = b"".join(b'{"p":"%s"}\n' % os.urandom(500).hex().encode() for _ in range(50))
RECORDS_PER_CHUNK = 50


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty file system of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system, and sending as several users, needs root")
    if request.param == "ext4":
        if reason := missing("ext4"):
            pytest.skip(reason)
        with image("ext4") as made:
            os.chmod(made.directory.parent, 0o755)
            yield made.directory
        return
    directory = request.getfixturevalue("tmp_path") / "small"
    directory.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(directory))
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


MakeDaemon = Callable[..., "Small"]


class Small:
    """A daemon on that file system, and senders of several users."""

    def __init__(self, daemon: Daemon, disk: Path) -> None:
        self.daemon = daemon
        self.disk = disk

    def connect(self, uid: int, **said: Any) -> Producer:
        """Connects as a user, and says hello."""
        with acting_as(uid):
            sender = self.daemon.connect()
        sender.hello(**said)
        return sender

    def status(self) -> dict[str, Any]:
        asking = self.daemon.connect()
        asking.send(b'{"_status":1}\n')
        status = asking.answer()
        asking.close()
        return status

    def fill(self, uid: int, stream: str) -> tuple[Producer, int]:
        """Sends as a user until it is stopped; the sender, and how many records it sent whole."""
        sender = self.connect(uid, stream=stream)
        return sender, self.fill_more(sender, uid)

    def fill_more(self, sender: Producer, uid: int) -> int:
        """Sends until the user's share is used up, and what was read is stored."""
        sent_bytes = 0
        sender.socket.setblocking(False)

        def is_stopped() -> bool:
            nonlocal sent_bytes
            with contextlib.suppress(BlockingIOError):
                while True:
                    at = sent_bytes % len(CHUNK)
                    sent_bytes += sender.socket.send(CHUNK[at:])
            status = self.status()
            # Part of a record of each user may be left, whose end is not read.
            parts_bytes = len(status["uids_at_share"]) * len(CHUNK) / RECORDS_PER_CHUNK
            return uid in status["uids_at_share"] and status["pending_bytes"] < parts_bytes

        eventually(is_stopped, "the user to be stopped")
        sender.socket.settimeout(PATIENCE_S)
        return sent_bytes // len(CHUNK) * RECORDS_PER_CHUNK

    def goes_on(self, uid: int, stream: str, records: int = 200) -> None:
        """A user sends, and is acknowledged."""
        sender = self.connect(uid, stream=stream)
        sender.send(b'{"n":1}\n' * records)
        sender.wait_for_ack(records)
        sender.close()

    def has_to_wait(self, uid: int, stream: str) -> Producer:
        """A user sends, and is soon not read any more."""
        before = self.status()["waiting_senders"]
        sender = self.connect(uid, stream=stream)

        def is_held() -> bool:
            # Its share may have a little room at this moment.
            with contextlib.suppress(BlockingIOError):
                sender.socket.send(CHUNK, socket.MSG_DONTWAIT)
            return bool(self.status()["waiting_senders"] > before)

        eventually(is_held, "a sender to wait")
        return sender

    def free(self) -> int:
        found = os.statvfs(self.disk)
        return found.f_bavail * found.f_frsize

    @contextlib.contextmanager
    def another_program_leaves(self, free: int) -> Iterator[None]:
        """Another program fills the disk, except for `free` bytes."""
        filler = self.disk / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - free)
        yield
        filler.unlink()

    def told(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.daemon.log() if entry["event"] == event]


@pytest.fixture
def make(disk: Path, root: Path) -> Iterator[Callable[..., Small]]:
    os.chmod(root, 0o755)
    with contextlib.ExitStack() as stack:

        def make(config: str = WITHOUT_COMPACTION) -> Small:
            daemon = Daemon(root, CONFIG + config, data=disk / "data")
            stack.callback(daemon.close)
            return Small(daemon.start(), disk)

        yield make


def test_one_who_fills_the_disk_is_stopped_and_all_others_go_on(make: MakeDaemon) -> None:
    small = make()
    sender, _ = small.fill(ANN, "big")
    assert small.free() > 4 * MIB
    small.goes_on(BOB, "pay")
    small.goes_on(0, "system")
    small.has_to_wait(ANN, "other")  # in no other stream, and over no other connection
    # A look may find some more blocks, which are soon taken.
    eventually(lambda: small.status()["uids_at_share"] == [ANN], "the user to be named")
    eventually(lambda: small.told("space_share_used_up"), "the log to name the user")
    status = small.status()
    assert status["is_space_low"]
    assert status["ok"]
    assert 0 < status["free_bytes"] < status["keep_free_bytes"]
    assert b"free space is low" in small.daemon.cli("status").stdout
    named = b"user 1000 has used up the share"
    eventually(lambda: named in small.daemon.cli("status").stdout, "the user to be named")
    (low,) = small.told("space_low")
    assert low["keep_free_bytes"] == status["keep_free_bytes"]
    assert [entry["uid"] for entry in small.told("space_share_used_up")] == [ANN]
    assert not small.told("commit_failed")
    small.daemon.cli("verify")
    sender.close()


def test_compaction_leaves_the_last_space_to_records(make: MakeDaemon) -> None:
    small = make("[compaction]\nseal_bytes = '4MiB'\n")
    sender = small.connect(ANN, stream="big")
    sender.socket.setblocking(False)

    def is_low() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.socket.send(CHUNK)
        return bool(small.told("space_share_used_up"))

    eventually(is_low, "the user to be stopped")
    for _ in range(20):
        small.goes_on(BOB, "pay")
    assert not small.told("commit_failed")
    small.daemon.cli("verify")


def test_two_who_fill_it_are_both_stopped_and_a_third_goes_on(make: MakeDaemon) -> None:
    small = make()
    ann, _ = small.fill(ANN, "big")
    bob, _ = small.fill(BOB, "big")
    small.goes_on(EVE, "pay")
    small.goes_on(0, "system")
    # Root has what nobody else could take.
    assert small.free() > 3 * MIB
    ann.close()
    bob.close()


def test_a_thousand_streams_are_no_way_around(make: MakeDaemon) -> None:
    small = make()
    sender, _ = small.fill(ANN, "big")
    sender.close()
    small.goes_on(BOB, "pay")
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            each = small.connect(ANN, stream=f"s{number}")
            stack.callback(each.close)
            each.send(b'{"n":1}\n')
            each.socket.shutdown(1)
        small.goes_on(BOB, "pay")
        assert small.free() > 4 * MIB


def test_another_program_that_fills_it_stops_all_but_root_until_there_is_space(
    make: MakeDaemon,
) -> None:
    small = make()
    small.goes_on(ANN, "app")
    with small.another_program_leaves(3 * MIB):
        sender = small.connect(ANN, stream="app")

        def is_noticed() -> bool:
            sender.send(b'{"n":1}\n')
            return bool(small.status()["is_space_low"])

        eventually(is_noticed, "the lack of space to be noticed")
        waiting = [small.has_to_wait(uid, "app") for uid in (ANN, BOB)]
        small.goes_on(0, "system")
        status = small.status()
        assert not status["ok"]
        assert status["uids_at_share"] == []  # nobody's share is at fault
        assert not small.told("space_share_used_up")
    for each in waiting:
        each.wait_for_ack(1)
    eventually(lambda: not small.status()["is_space_low"], "the space to be noticed")
    eventually(lambda: small.told("space_no_longer_low"), "the log of the space")
    assert len(small.told("space_low")) == len(small.told("space_no_longer_low")) == 1
    assert small.status()["ok"]
    assert not (small.disk / "data" / ".shares").exists()


def test_what_was_held_back_is_stored_once_space_comes_back(make: MakeDaemon) -> None:
    small = make()
    with small.another_program_leaves(24 * MIB):
        sender, sent = small.fill(ANN, "big")
        assert small.status()["totals"]["records"] < sent
    sender.wait_for_ack(sent)
    assert small.status()["uids_at_share"] == []
    small.daemon.cli("verify")


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_restart_gives_nobody_a_new_share(make: MakeDaemon, *, is_killed: bool) -> None:
    small = make()
    sender, _ = small.fill(ANN, "big")
    sender.close()

    def is_noted() -> bool:
        note = small.disk / "data" / ".shares"
        return note.exists() and json.loads(note.read_bytes())["used"].get(str(ANN), 0) > 4 * MIB

    eventually(is_noted, "the share to be noted for the next process")
    if is_killed:
        small.daemon.kill()
    else:
        assert small.daemon.stop() == 0
    before = small.free()
    small.daemon.start()
    small.fill(ANN, "other")  # what little may be left
    assert small.free() > before - 2 * MIB
    small.goes_on(BOB, "pay")


def test_a_stream_that_drops_its_oldest_goes_on_in_its_own_space(make: MakeDaemon) -> None:
    small = make("[stream.debug]\non_full = 'drop_oldest'\n" + WITHOUT_COMPACTION)
    small.goes_on(BOB, "audit")
    sender = small.connect(ANN, stream="debug")
    sent = 0
    while not (small.told("oldest_segments_dropped") and sent > 60 * MIB // 1000):
        for _ in range(20):
            sender.send(CHUNK)
        sent += 20 * RECORDS_PER_CHUNK
        sender.wait_for_ack(sent)
    assert small.free() > 4 * MIB
    small.goes_on(BOB, "audit")
    assert len(small.daemon.values("audit")) == 400
    assert not small.told("commit_failed")
    small.has_to_wait(ANN, "audit")  # whose share is used up all the same
    small.daemon.cli("verify")


def test_over_a_quota_that_drops_the_sender_is_told_and_others_go_on(make: MakeDaemon) -> None:
    small = make("[uid.1000.quota]\nover = 'drop'\n" + WITHOUT_COMPACTION)
    sender = small.connect(ANN, stream="big")
    dropped = acked = sent = 0
    while not dropped:
        sender.send(CHUNK)
        sent += RECORDS_PER_CHUNK
        while acked < sent:
            answer = sender.answer()
            acked = answer.get("ack", acked)
            if "error" in answer:
                assert answer["error"] == "over_quota"
                assert answer["quota"] == "uid"
                dropped += answer["last"] - answer["first"] + 1
    small.goes_on(BOB, "pay")
    assert small.daemon.stop() == 0
    lines = small.daemon.cli("cat", "big").stdout.splitlines()
    reports = [json.loads(line) for line in lines if b"records_dropped" in line]
    assert sum(each["records"] for each in reports) == dropped
    assert {(each["limit"], each["quota"], each["uid"]) for each in reports} == {
        ("keep_free", "uid", ANN)
    }


def test_without_keep_free_one_may_fill_the_disk(make: MakeDaemon) -> None:
    small = make()
    small.daemon.stop()
    small.daemon.config.write_text(CONFIG.replace("25%", "0B"))
    small.daemon.start()
    sender = small.connect(ANN, stream="big")
    sender.socket.setblocking(False)

    def fails() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.socket.send(CHUNK)
        return bool(small.status()["failing"])

    eventually(fails, "the disk to be full")
    assert not small.told("space_low")
