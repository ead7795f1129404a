"""Docker's split lines with a real daemon: joined without acks, and never lost or doubled with."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_forward import Sender

LISTEN = """
[[listen]]
path = "{root}/forward"
protocol = "forward"
stream = "{stream}"
"""
TIME = 1795466382
PART_BYTES = 16 * 1024

pack = msgspec.msgpack.encode


def parts_of(log: str, line: str, name: str = "web") -> list[dict[str, Any]]:
    """The maps of a line's parts, as Docker's driver makes them."""
    starts = range(0, len(log), PART_BYTES)
    return [
        {
            "container_id": f"id-of-{name}",
            "container_name": f"/{name}",
            "source": "stdout",
            "log": log[start : start + PART_BYTES],
            "partial_message": "true",
            "partial_id": line,
            "partial_ordinal": str(ordinal),
            "partial_last": "true" if ordinal == len(starts) else "false",
        }
        for ordinal, start in enumerate(starts, 1)
    ]


def messages(log: str, line: str, name: str = "web") -> list[bytes]:
    """The messages of a line, without acks: Docker's default."""
    return [pack([name, TIME, fields, {}]) for fields in parts_of(log, line, name)]


@contextlib.contextmanager
def running(root: Path, stream: str = "docker") -> Iterator[Daemon]:
    daemon = Daemon(root, LISTEN.format(root=root, stream=stream))
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def daemon(root: Path) -> Iterator[Daemon]:
    with running(root) as daemon:
        yield daemon


def logs(daemon: Daemon, stream: str = "docker") -> list[str]:
    return [record["log"] for record in daemon.records(stream)]


def test_long_lines_of_containers_are_one_record_each_in_the_stream_of_their_container(
    root: Path,
) -> None:
    web, db = "w" * 40_000, "d" * 100_000
    with running(root, stream="{container}") as daemon:
        one, two = Sender(root), Sender(root)
        with one.socket, two.socket:
            one.send(*messages(web, "1", "web"), pack(["web", TIME, parts_of("w", "2")[0]]))
            two.send(*messages(db, "1", "db"))
            eventually(lambda: len(logs(daemon, "web")) == 2 and len(logs(daemon, "db")) == 1)
        assert logs(daemon, "web") == [web, "w"]
        assert logs(daemon, "db") == [db]
        (record,) = daemon.values("db")
        assert record["container_name"] == "/db"
        assert record["container_id"] == "id-of-db"
        assert not any(name.startswith("partial") for name in record)


def test_parts_are_kept_if_the_connection_ends_before_the_last_one(
    root: Path, daemon: Daemon
) -> None:
    log = "a" * 40_000
    sender = Sender(root)
    with sender.socket:
        sender.send(*messages(log, "1")[:2])
    eventually(lambda: len(logs(daemon)) == 2)
    assert [record["partial_ordinal"] for record in daemon.records("docker")] == ["1", "2"]
    again = Sender(root)
    with again.socket:
        again.send(messages(log, "1")[2])
        eventually(lambda: len(logs(daemon)) == 3)
    assert "".join(logs(daemon)) == log


@pytest.mark.parametrize("has_acks", [False, True])
def test_parts_are_kept_if_the_daemon_stops_before_the_last_one(
    root: Path, daemon: Daemon, *, has_acks: bool
) -> None:
    log = "a" * 40_000
    sender, other = Sender(root), Sender(root)
    with sender.socket, other.socket:
        asking = sender if has_acks else other
        asking.send(pack(["t", [], {"chunk": "it is up"}]))
        assert asking.acks(1) == ["it is up"]
        sender.send(*messages(log, "1")[:2])
        assert daemon.stop() == 0
    assert logs(daemon) == [log[:PART_BYTES], log[PART_BYTES : 2 * PART_BYTES]]
    daemon.cli("verify")


def test_parts_are_kept_if_what_comes_next_is_no_message(root: Path, daemon: Daemon) -> None:
    sender = Sender(root)
    with sender.socket:
        sender.send(messages("a" * 40_000, "1")[0], b"\xc1")
        assert sender.is_closed()
    eventually(lambda: logs(daemon) == ["a" * PART_BYTES])


class Resending(threading.Thread):
    """Sends chunks, each after the ack of the one before; repeats one that has none, as Docker."""

    def __init__(self, root: Path, chunks: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.waiting = chunks
        self.acknowledged = 0
        self.gives_up = False
        self._pause = threading.Event()

    def run(self) -> None:
        while self.waiting and not self.gives_up:
            try:
                self._converse()
            except OSError:
                self._pause.wait(0.02)  # the daemon is starting again

    def _converse(self) -> None:
        sender = Sender(self.root)
        with sender.socket:
            while self.waiting and not self.gives_up:
                sender.send(self.waiting[0])
                sender.acks(1)
                del self.waiting[0]
                self.acknowledged += 1


def _killed_often(root: Path, daemon: Daemon, senders: list[Resending], kills: int) -> None:
    """Kills the daemon while they send. Returns when all is acknowledged."""
    share = sum(len(each.waiting) for each in senders) // (kills + 1)
    for each in senders:
        each.start()
    try:
        for kill in range(1, kills + 1):
            wanted = kill * share
            eventually(lambda: sum(each.acknowledged for each in senders) >= wanted)  # noqa: B023
            daemon.kill()
            daemon.start()
        for each in senders:
            each.join(PATIENCE_S)
            assert not each.waiting
    finally:
        for each in senders:
            each.gives_up = True
            each.join(PATIENCE_S)


def test_acknowledged_parts_are_stored_once_each_however_often_the_daemon_is_killed(
    root: Path, daemon: Daemon
) -> None:
    """Docker sends a part after the ack of the one before, so each must be on disk by itself."""
    lines = {f"{name}-{n}": name * (2 * PART_BYTES + n) for name in "abc" for n in range(10)}
    senders = [
        Resending(
            root,
            [
                pack([name, TIME, fields, {"chunk": f"{line}/{fields['partial_ordinal']}"}])
                for line, log in lines.items()
                if line[0] == name
                for fields in parts_of(log, line)
            ],
        )
        for name in "abc"
    ]
    _killed_often(root, daemon, senders, 4)
    found: dict[str, str] = {}
    for record in daemon.records("docker"):
        line = record["partial_id"]
        found[line] = found.get(line, "") + record["log"]
    assert found == lines
    daemon.cli("verify")


def test_lines_that_are_whole_in_a_chunk_are_joined_once_however_often_the_daemon_is_killed(
    root: Path, daemon: Daemon
) -> None:
    """So a relay sends them, which collects what several containers wrote."""
    wanted: list[str] = []
    senders = []
    for name in "abc":
        chunks = []
        for n in range(30):
            whole, short = f"{name}{n}-" + "x" * 2 * PART_BYTES, f"{name}{n}-short"
            wanted += [whole, short]
            first, *rest = parts_of(whole, f"{name}{n}", name)
            entries = [[TIME, fields] for fields in (first, {"log": short}, *rest)]
            chunks.append(pack([name, entries, {"chunk": f"{name}{n}"}]))
        senders.append(Resending(root, chunks))
    _killed_often(root, daemon, senders, 4)
    assert Counter(logs(daemon)) == Counter(wanted)
    daemon.cli("verify")
