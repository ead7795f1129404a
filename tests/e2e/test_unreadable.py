"""A disk that does not give a segment of one stream, for a while, beneath a real daemon."""

from collections.abc import Callable
from pathlib import Path

import pytest

from logengine.disk.segment_file import list_segments
from tests.bad_disk import bad_sector
from tests.daemon import Daemon, eventually
from tests.e2e.test_status import asked


def test_a_repair_waits_for_a_file_that_the_disk_does_not_give(stopped: Daemon) -> None:
    with bad_sector(newest_of(stopped, "app")):
        for options in ([], ["--dry-run"]):
            said = stopped.cli("repair", "app", *options, status=1)
            assert b"was not repaired" in said.stderr
            assert said.stderr.count(b"\n") == 1
        said = stopped.cli("erase", "app", "--up-to", "app:3", "--reason", "x", status=1)
        assert b"try again when the disk can read it" in said.stderr
    assert not (stopped.data / ".damaged").exists()
    stopped.cli("verify")
    assert len(stopped.values("app")) == 10


def newest_of(daemon: Daemon, stream: str) -> Path:
    return max((daemon.data / stream).glob("*.ndjson"))


@pytest.fixture
def stopped(daemon: Daemon) -> Daemon:
    """A daemon that has ended, with ten records of a producer in `app`, and one in `web`."""
    sender = daemon.connect()
    sender.hello(stream="app", producer="p")
    sender.send(b"".join(b"%d\n" % number for number in range(1, 11)))
    sender.wait_for_ack(10)
    daemon.cli("send", "-s", "web", stdin=b"one\n")
    daemon.stop()
    return daemon


@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill], ids=["stop", "kill"])
def test_a_producer_waits_until_its_stream_can_be_read_and_sends_nothing_twice(
    daemon: Daemon, end: Callable[[Daemon], object]
) -> None:
    sender = daemon.connect()
    sender.hello(stream="app", producer="p")
    sender.send(b"".join(b"%d\n" % number for number in range(1, 11)))
    sender.wait_for_ack(10)
    end(daemon)
    with bad_sector(newest_of(daemon, "app")):
        daemon.start()
        (failing,) = asked(daemon, 1)["failing"]
        assert failing["stream"] == "app"
        assert "[Errno 5]" in failing["error"]
        assert str(newest_of(daemon, "app")) in failing["error"]
        daemon.cli("send", "-s", "web", stdin=b"goes on\n")
        sender = daemon.connect()
        sender.send(b'{"_hello":1,"stream":"app","producer":"p"}\n11\n')
        eventually(lambda: asked(daemon, 1)["failing"][0]["attempts"] > 3, "more tries")
    # Nothing was answered meanwhile: this is the first line.
    assert sender.answer()["next"] == 11
    sender.send(b"11\n12\n")
    sender.wait_for_ack(12)
    assert asked(daemon, 0)["failing"] == []
    events = daemon.events()
    assert events.count("stream_not_recovered") == 1
    assert "segment_damaged" not in events
    daemon.stop()
    assert daemon.cli("verify").returncode == 0


def test_a_stop_meanwhile_leaves_everything_as_it_was(stopped: Daemon) -> None:
    with bad_sector(newest_of(stopped, "app")):
        before = sorted((stopped.data / "app").iterdir())
        stopped.start()
        eventually(lambda: asked(stopped, 1)["failing"][0]["attempts"] > 1, "more tries")
        assert stopped.stop() == 0
        assert "stop_timeout" not in stopped.events()
        assert sorted((stopped.data / "app").iterdir()) == before
    stopped.start()
    assert asked(stopped, 0)["ok"] is True
    assert len(stopped.records("app")) == 10


def test_a_stream_that_its_disk_never_gives_goes_on_after_a_repair(stopped: Daemon) -> None:
    segment = newest_of(stopped, "app")
    with bad_sector(segment):
        stopped.cli("verify", status=1)
        stopped.cli("repair", "app", "--unreadable-is-damaged")
        stopped.cli("verify")
    stopped.start()
    assert asked(stopped, 0)["ok"] is True
    sender = stopped.connect()
    sender.hello(stream="app", producer="p")
    sender.send(b"after\n")
    sender.wait_for_ack(1)
    stopped.stop()
    # Nobody knows which numbers were given out: none of those is given out again.
    assert list_segments(segment.parent)[-1] > 10
