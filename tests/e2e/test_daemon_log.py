"""The daemon's own log, with a reader that stands still and senders that try to fill it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import PROGRAM, Daemon, eventually

# As small as allowed, so that a test fills it soon.
CONFIG = '[limits]\nmax_record = "1KiB"\n[log]\nmax_lines = 1000000\nmax_waiting = "4KiB"\n'
TOO_LARGE = b"x" * 2000 + b"\n"
# Lines of over 100 bytes each: more than a pipe of 64 KiB and the queue take.
RECORDS = 2000


class DaemonIntoPipe(Daemon):
    """A daemon whose standard error is a pipe that nobody reads until the test does."""

    def start(self) -> "DaemonIntoPipe":
        self.reader, writer = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, *PROGRAM, "run", "--config", str(self.config)),
                *("--data", str(self.data), "--socket", str(self.socket)),
            ],
            stderr=writer,
        )
        os.close(writer)
        self.log_path.touch()
        eventually(self.listens, "the daemon to listen")
        return self

    def close(self) -> None:
        super().close()
        os.close(self.reader)


@pytest.fixture
def daemon(root: Path) -> Iterator[DaemonIntoPipe]:
    with contextlib.closing(DaemonIntoPipe(root, CONFIG)) as daemon:
        yield daemon.start()


def fill_log(daemon: Daemon) -> None:
    """Sends refused records, each a line of the log, and waits until all were read."""
    sender = daemon.connect()
    assert sender.hello(stream="bad")["welcome"] == 1
    for number in range(1, RECORDS + 1):
        sender.send(TOO_LARGE)
        while sender.answer().get("record") != number:
            pass  # an ack


def test_a_reader_that_stands_still_stops_no_sender_and_learns_how_many_lines_it_missed(
    daemon: DaemonIntoPipe,
) -> None:
    fill_log(daemon)
    other = daemon.connect()
    other.hello(stream="app")
    other.send(b"1\n")
    other.wait_for_ack(1)
    daemon.cli("status")
    told, lost = 0, 0
    with open(daemon.reader, closefd=False) as lines:
        while told + lost < RECORDS:
            line = json.loads(lines.readline())
            told += line["event"] == "record_too_large"
            lost += line["lines"] if line["event"] == "log_lines_lost" else 0
    assert told + lost == RECORDS
    assert lost > 0


def test_a_reader_that_stands_still_holds_up_no_stop(daemon: DaemonIntoPipe) -> None:
    fill_log(daemon)
    assert daemon.stop() == 0


def test_a_sender_that_is_refused_again_and_again_writes_few_lines(root: Path) -> None:
    daemon = Daemon(
        root, '[limits]\nmax_record = "1KiB"\n[log]\nmax_lines = 5\nreport_every = "1h"\n'
    )
    with contextlib.closing(daemon):
        daemon.start()
        fill_log(daemon)
        assert daemon.stop() == 0
        assert daemon.events().count("record_too_large") == 5
        (suppressed,) = [line for line in daemon.log() if line["event"] == "log_lines_suppressed"]
        assert (suppressed["of"], suppressed["uid"]) == ("record_too_large", os.getuid())
        assert suppressed["lines"] == RECORDS - 5
