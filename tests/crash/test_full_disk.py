"""A real full disk, ext4 and xfs: dropping the oldest, stopping, and saying so.

Withstands: somebody else filling the disk to the last block, before and during a stop.
"""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rig.image import Image, image, missing
from tests.daemon import Daemon, Producer, eventually

CONFIG = """
stop_timeout = "5s"
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
def disk(request: pytest.FixtureRequest) -> Iterator[Image]:
    if reason := missing(request.param):
        pytest.skip(reason)
    with image(request.param) as disk:
        yield disk


def lines(first: int, last: int) -> bytes:
    return b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 1000) for n in range(first, last + 1))


def stored_or_failing(daemon: Daemon, records: int) -> dict[str, Any] | None:
    """The daemon's status, once a stream fails or so many records were committed in all."""
    asking = daemon.connect()
    asking.send(b'{"_status":1}\n')
    status = asking.answer()
    asking.close()
    return status if status["failing"] or status["totals"]["records"] >= records else None


def send_until_failing(
    daemon: Daemon, sender: Producer, last: int, others: int
) -> tuple[int, dict[str, Any]]:
    """Sends what comes after `last` until a stream fails; the last record, and the status then.

    There may be room at first: xfs has some blocks of its own left, a merge that was under way
    gives some back, and whoever drops whole segments frees more than it takes. `others` is how
    many records other senders had committed. At most one piece is not read, which the buffers
    of the socket hold.
    """
    while True:
        committed = partial(stored_or_failing, daemon, others + last)
        status = eventually(committed, "a commit, or its failure")
        if status["failing"]:
            return last, status
        sender.send(lines(last + 1, last + 100))
        last += 100


@pytest.mark.parametrize("compacts", [False, True])
def test_a_stream_that_drops_its_oldest_goes_on_and_the_other_waits(
    disk: Image, root: Path, *, compacts: bool
) -> None:
    config = CONFIG + "[stream.debug]\non_full = 'drop_oldest'\n"
    config += f"[compaction]\nenabled = {str(compacts).lower()}\n"
    daemon = Daemon(root, config, data=disk.directory / "data")
    with contextlib.closing(daemon):
        daemon.start()
        senders = {}
        for stream in ("debug", "audit"):
            senders[stream] = daemon.connect()
            senders[stream].hello(stream=stream)
            for turn in range(30):  # segments of 100 KB
                senders[stream].send(lines(turn * 100 + 1, turn * 100 + 100))
                senders[stream].wait_for_ack(turn * 100 + 100)
        with disk.without_space():
            sent, last = 3000, 3000
            last, _ = send_until_failing(daemon, senders["audit"], last, others=sent)
            while "oldest_segments_dropped" not in daemon.events():
                senders["debug"].send(lines(sent + 1, sent + 400))
                sent += 400
                senders["debug"].wait_for_ack(sent)
            left = [
                json.loads(line)["n"] for line in daemon.cli("cat", "debug").stdout.splitlines()
            ]
            assert left == list(range(left[0], sent + 1))
            assert left[0] > 1
            if not compacts:  # a merged segment may hold far more than is wanted
                for entry in daemon.log():
                    if entry["event"] == "oldest_segments_dropped":
                        assert entry["last"] - entry["first"] + 1 < 1000
            # What was freed and not taken is anybody's, and then the other stream waits again.
            last, status = send_until_failing(daemon, senders["audit"], last, others=sent)
            assert [failing["stream"] for failing in status["failing"]] == ["audit"]
            assert "No space left" in status["failing"][0]["error"]
            assert status["totals"]["dropped_records"] == left[0] - 1
        senders["audit"].wait_for_ack(last)
        assert [value["n"] for value in daemon.values("audit")] == list(range(1, last + 1))
        daemon.cli("verify")
        assert daemon.stop() == 0


@pytest.mark.parametrize("reserve", ["2MiB", "0B"])
def test_a_stop_on_a_full_disk_commits_what_was_received_into_the_reserve(
    disk: Image, root: Path, reserve: str
) -> None:
    daemon = Daemon(root, f"reserve = '{reserve}'\n" + CONFIG, data=disk.directory / "data")
    with contextlib.closing(daemon):
        daemon.start()
        if reserve != "0B":
            eventually((daemon.data / ".reserve").exists, "the reserve")
        sender = daemon.connect()
        sender.send(lines(1, 1))  # asks for no answers, and never sends again
        eventually((daemon.data / "default").exists, "the first record")
        with disk.without_space():
            sender.send(lines(2, 200))
            sender.close()
            eventually(lambda: "commit_failed" in daemon.events(), "the disk to be full")
            assert daemon.stop() == 0
            stored = [value["n"] for value in daemon.values()]
        assert stored == list(range(1, len(stored) + 1))
        if reserve != "0B":
            assert len(stored) == 200
            assert "reserve_released" in daemon.events()
            assert not (daemon.data / ".reserve").exists()
        else:
            assert len(stored) < 200
            assert {"stop_timeout", "records_dropped"} <= set(daemon.events())
        daemon.start()
        daemon.cli("verify")
        if reserve != "0B":
            eventually((daemon.data / ".reserve").exists, "the reserve to be made again")
        assert daemon.stop() == 0
