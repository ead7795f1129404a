"""`logengine status`, and what the daemon says of itself while something is wrong."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.crash_mark import CRASH_MARK_NAME, read_boot_id
from tests.daemon import PATIENCE_S, Daemon, Producer, eventually

SMALL = """
[limits]
max_record = "64KiB"
max_pending = "256KiB"
max_pending_stream = "256KiB"
"""


def asked(daemon: Daemon, status: int) -> dict[str, Any]:
    return daemon.status(status)


@contextlib.contextmanager
def failing_stream(daemon: Daemon, name: str = "bad") -> Iterator[Producer]:
    """A stream in whose directory's place there is a file, and a sender of two records to it."""
    in_the_way = daemon.data / name
    in_the_way.write_text("in the way")
    sender = daemon.connect()
    sender.hello(stream=name)
    sender.send(b"waits\nwaits\n")
    eventually(lambda: "commit_failed" in daemon.events(), "the failure")
    yield sender
    in_the_way.unlink()


def test_a_daemon_that_is_well_says_so(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\ntwo\n")
    status = asked(daemon, 0)
    assert status["ok"] is True
    assert status["failing"] == []
    assert (status["streams"], status["pending_bytes"]) == (1, 0)
    assert status["totals"]["records"] == 2
    assert daemon.process is not None
    assert status["pid"] == daemon.process.pid
    told = daemon.cli("status").stdout.decode()
    assert told.startswith("ok\n")
    assert "2 records" in told


def test_a_stream_that_fails_is_named_with_the_reason_and_what_waits(daemon: Daemon) -> None:
    with failing_stream(daemon) as sender:
        status = asked(daemon, 1)
        assert status["ok"] is False
        (failing,) = status["failing"]
        assert failing["stream"] == "bad"
        assert "it is a regular file, expected a directory" in failing["error"]
        assert failing["waiting_records"] == 2
        assert failing["waiting_bytes"] == status["pending_bytes"] > 0
        assert failing["attempts"] >= 1
        told = daemon.cli("status", status=1).stdout.decode()
        assert told.startswith("not ok\n")
        assert "bad cannot be committed" in told
    sender.wait_for_ack(2)
    assert asked(daemon, 0)["failing_streams"] == 0


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(daemon: Daemon) -> None:
    with failing_stream(daemon) as sender:
        eventually(lambda: asked(daemon, 1)["failing"][0]["attempts"] > 3, "more tries")
    sender.wait_for_ack(2)
    # A thread writes the log, perhaps after the ack.
    eventually(lambda: "stream_recovered" in daemon.events(), "the log of the recovery")
    assert daemon.events().count("commit_failed") == 1
    assert daemon.events().count("stream_recovered") == 1
    recovered = next(entry for entry in daemon.log() if entry["event"] == "stream_recovered")
    assert recovered["failed_attempts"] > 3


def test_a_stream_of_which_nothing_is_removed_is_named(root: Path) -> None:
    daemon = Daemon(root)
    daemon.data.mkdir()
    # What a daemon leaves that was killed after the sync of a directory had failed.
    (daemon.data / CRASH_MARK_NAME).write_text(f"boot {read_boot_id()}\nunsynced app\n")
    try:
        daemon.start()
        assert asked(daemon, 0)["unsynced_streams"] == ["app"]
        said = daemon.cli("status").stdout.decode()
        assert "no file of app is removed until the next boot" in said
        eventually(lambda: "removals_ended" in daemon.events(), "removals_ended")
        daemon.stop()
        daemon.start()
        assert "no file of app is removed" in daemon.cli("status").stdout.decode()
    finally:
        daemon.close()


def test_the_status_is_there_when_nothing_else_is_read(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(SMALL)
    with failing_stream(daemon), failing_stream(daemon, "worse"):
        senders = [daemon.connect() for _ in range(6)]
        for sender in senders:
            # Nothing ends these lines: they fill the memory, and no commit can make room.
            sender.send(b"x" * 60_000)
        eventually(lambda: asked(daemon, 1)["pending_bytes"] >= 256 * 1024, "the memory to be full")
        assert asked(daemon, 1)["failing_streams"] == 2
        for sender in senders:
            sender.close()


def test_the_status_is_for_root_and_the_daemons_user(daemon: Daemon, root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else needs root")
    root.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        with contextlib.suppress(BaseException):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(PATIENCE_S)
                asking.connect(str(daemon.socket))
                asking.sendall(b'{"_status":1}\n')
                answer = json.loads(asking.makefile("rb").readline())
            os._exit(0 if answer["error"] == "not_allowed" else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_without_a_daemon_it_is_said_in_one_line(daemon: Daemon) -> None:
    daemon.stop()
    done = daemon.cli("status", status=1)
    assert done.stderr.startswith(b"logengine: no daemon answers at ")
    assert len(done.stderr.splitlines()) == 1


def test_the_service_manager_is_told_when_it_begins_and_when_it_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(root / "notify"))
        manager.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(root / "notify"))
        daemon = Daemon(root)
        with contextlib.closing(daemon):
            daemon.start()
            assert manager.recv(4096) == b"READY=1\nSTATUS=Serving"
            with failing_stream(daemon) as sender:
                said = manager.recv(4096)
                assert said.startswith(b"STATUS=Waiting for the disk: bad cannot be committed, ")
            sender.wait_for_ack(2)
            while (said := manager.recv(4096)) != b"STATUS=Serving":
                assert said.startswith(b"STATUS=Waiting for the disk: bad")
