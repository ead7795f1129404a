"""A real full disk, ext4 and xfs: dropping the oldest, stopping, and saying so.

Withstands: somebody else filling the disk to the last block, before and during a stop.
"""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.crash.image import Image, image, missing
from tests.daemon import Daemon, eventually

CONFIG = """
stop_timeout = "5s"
[commit]
retry_max = "200ms"
[limits]
max_record = "64KiB"
max_pending = "1MiB"
max_pending_stream = "512KiB"
"""


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest) -> Iterator[Image]:
    if reason := missing(request.param):
        pytest.skip(reason)
    with image(request.param) as disk:
        yield disk


def lines(first: int, last: int) -> bytes:
    return b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 1000) for n in range(first, last + 1))


def is_stored_or_failed(daemon: Daemon, last: int) -> bool:
    return "commit_failed" in daemon.events() or len(daemon.values("audit")) >= last


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
            # xfs has some blocks of its own left, and a merge that was under way gives some back.
            last = 3000
            while "commit_failed" not in daemon.events():
                last += 400
                senders["audit"].send(lines(last - 399, last))
                eventually(partial(is_stored_or_failed, daemon, last), "a commit, or its failure")
            senders["debug"].send(lines(3001, 3400))
            senders["debug"].wait_for_ack(3400)
            assert "oldest_segments_dropped" in daemon.events()
            left = [
                json.loads(line)["n"] for line in daemon.cli("cat", "debug").stdout.splitlines()
            ]
            assert left == list(range(left[0], 3401))
            assert left[0] > 1
            # A merged segment gives more than is wanted, and the other stream takes the rest.
            if not compacts:
                status = json.loads(daemon.cli("status", "--json", status=1).stdout)
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
