"""Fluentd's Forward protocol with a real daemon: an ack means on disk, and once."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.bad_disk import bad_sector
from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_status import asked

LISTEN = """
[[listen]]
path = "{root}/forward"
protocol = "forward"
stream = "fluent"
"""
TIME = 1795466382

pack = msgspec.msgpack.encode


class Sender:
    """A connection, written from the protocol's documentation alone."""

    def __init__(self, root: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self._received = b""
        try:
            self.socket.connect(str(root / "forward"))
        except OSError:
            self.socket.close()
            raise

    def send(self, *messages: bytes) -> None:
        self.socket.sendall(b"".join(messages))

    def acks(self, count: int) -> list[str]:
        """The next `count` acks."""
        unpacked: list[str] = []
        while len(unpacked) < count:
            size = 6 + (self._received[5] & 0x1F) if len(self._received) > 5 else 6
            if len(self._received) < size:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionResetError
                self._received += data
                continue
            unpacked.append(msgspec.msgpack.decode(self._received[:size])["ack"])
            self._received = self._received[size:]
        return unpacked

    def is_closed(self) -> bool:
        """Whether the daemon closes it, and says nothing before."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def chunk(name: str, *texts: object, tag: str = "t") -> bytes:
    return pack([tag, [[TIME, {"n": text}] for text in texts], {"chunk": name}])


@pytest.fixture
def daemon(root: Path) -> Iterator[Daemon]:
    daemon = Daemon(root, LISTEN.format(root=root))
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def connect(root: Path) -> Iterator[Callable[[], Sender]]:
    with contextlib.ExitStack() as connections:

        def connect() -> Sender:
            sender = Sender(root)
            connections.enter_context(sender.socket)
            return sender

        yield connect


@pytest.fixture
def sender(daemon: Daemon, connect: Callable[[], Sender]) -> Sender:
    return connect()


def stored(daemon: Daemon) -> list[Any]:
    return [record["n"] for record in daemon.records("fluent") if "n" in record]


def test_an_acknowledged_chunk_is_on_disk(daemon: Daemon, sender: Sender) -> None:
    sender.send(chunk("one", 1, 2))
    assert sender.acks(1) == ["one"]
    daemon.kill()
    (record, _) = daemon.records("fluent")
    assert record["time"] == "2026-11-23T20:39:42.000000Z"
    assert record["tag"] == "t"
    assert record["_pid"] == os.getpid()
    assert stored(daemon) == [1, 2]


def test_chunks_and_messages_without_one_are_stored_in_order(
    daemon: Daemon, sender: Sender
) -> None:
    sender.send(chunk("empty"), b"\xc0", chunk("one", 1), pack(["t", TIME, {"n": 2}]))
    sender.send(chunk("two", 3))
    assert sender.acks(3) == ["empty", "one", "two"]
    assert stored(daemon) == [1, 2, 3]


def test_a_message_without_a_chunk_is_stored_and_not_answered(
    daemon: Daemon, sender: Sender
) -> None:
    sender.send(pack(["t", TIME, {"n": 1}]))
    sender.socket.shutdown(socket.SHUT_WR)
    assert sender.is_closed()
    assert stored(daemon) == [1]


def test_a_chunk_that_was_stored_is_acknowledged_again_and_not_stored_again(
    connect: Callable[[], Sender], daemon: Daemon, sender: Sender
) -> None:
    sender.send(chunk("one", 1, 2))
    assert sender.acks(1) == ["one"]
    for _ in range(2):
        sender.send(chunk("one", 1, 2), chunk("two", 3), chunk("two", 3))
        assert sender.acks(3) == ["one", "two", "two"]
    other = connect()
    other.send(chunk("one", 1, 2))
    assert other.acks(1) == ["one"]
    assert stored(daemon) == [1, 2, 3]


def test_a_chunk_is_known_after_a_kill_and_a_restart(
    connect: Callable[[], Sender], daemon: Daemon, sender: Sender
) -> None:
    sender.send(*(chunk(f"c{n}", n) for n in range(100)))
    sender.acks(100)
    daemon.kill()
    daemon.start()
    again = connect()
    again.send(*(chunk(f"c{n}", n) for n in range(36, 101)))
    assert again.acks(65)[-1] == "c100"
    assert stored(daemon) == list(range(101))
    daemon.cli("verify")


def test_the_same_id_with_other_records_is_another_chunk(daemon: Daemon, sender: Sender) -> None:
    sender.send(chunk("one", 1), chunk("one", 2))
    assert sender.acks(2) == ["one", "one"]
    assert stored(daemon) == [1, 2]


def test_the_same_chunk_of_another_process_is_another_chunk(
    root: Path, daemon: Daemon, sender: Sender
) -> None:
    """Programs that start in the same second may make up the same ids."""
    sender.send(chunk("one", 1))
    assert sender.acks(1) == ["one"]
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(bytes.fromhex(sys.argv[2])); assert s.recv(100)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(root / "forward"), chunk("one", 1).hex()],
        check=True,
        timeout=PATIENCE_S,
    )
    assert stored(daemon) == [1, 1]


def test_a_chunk_with_a_record_that_is_too_large_is_acknowledged_once(
    connect: Callable[[], Sender], root: Path
) -> None:
    daemon = Daemon(root, "[limits]\nmax_record = '1KiB'\n" + LISTEN.format(root=root)).start()
    try:
        sender = connect()
        for _ in range(2):
            sender.send(chunk("mixed", 1, "x" * 2000), chunk("refused", "y" * 2000))
            assert sender.acks(2) == ["mixed", "refused"]
        assert stored(daemon) == [1]
        assert daemon.stop() == 0  # which writes the rest of the log
        assert daemon.events().count("record_too_large") == 2
    finally:
        daemon.close()


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xc1", pack(["t"])])
def test_what_is_no_message_ends_the_connection_and_not_the_daemon(
    connect: Callable[[], Sender], daemon: Daemon, sender: Sender, noise: bytes
) -> None:
    sender.send(pack(["t", TIME, {"n": 1}]) + noise + pack(["t", TIME, {"n": 2}]))
    assert sender.is_closed()
    other = connect()
    other.send(chunk("one", 3))
    assert other.acks(1) == ["one"]
    assert stored(daemon) == [1, 3]
    eventually(lambda: "malformed_input" in daemon.events(), "malformed_input")


def test_many_small_chunks_at_once_are_all_acknowledged_in_order(
    connect: Callable[[], Sender], daemon: Daemon
) -> None:
    """More than may be queued at the same time, from several connections."""
    senders = [connect() for _ in range(3)]
    for number, each in enumerate(senders):
        each.send(*(chunk(f"{number}-{n}", f"{number}-{n}") for n in range(500)))
    for number, each in enumerate(senders):
        assert each.acks(500) == [f"{number}-{n}" for n in range(500)]
    assert len(set(stored(daemon))) == len(stored(daemon)) == 1500


def test_a_stop_acknowledges_what_was_sent(connect: Callable[[], Sender], daemon: Daemon) -> None:
    each = connect()
    each.send(chunk("c0", 0))
    assert each.acks(1) == ["c0"]
    each.send(*(chunk(f"c{n}", n) for n in range(1, 200)))
    assert daemon.stop() == 0
    assert each.acks(199) == [f"c{n}" for n in range(1, 200)]
    assert each.is_closed()
    assert stored(daemon) == list(range(200))


def test_a_chunk_that_waits_while_the_data_directory_is_replaced_is_sent_again(
    connect: Callable[[], Sender], daemon: Daemon, sender: Sender
) -> None:
    sender.send(chunk("begin", 0))
    assert sender.acks(1) == ["begin"]
    daemon.data.rename(daemon.data.with_name("old"))
    sender.send(chunk("one", 1), chunk("one", 1))
    eventually(lambda: "data_directory_unusable" in daemon.events())
    daemon.data.mkdir()
    assert sender.is_closed()
    other = connect()
    other.send(chunk("one", 1), chunk("one", 1), chunk("begin", 0))
    assert other.acks(3) == ["one", "one", "begin"]
    assert stored(daemon) == [1, 0]


def test_a_chunk_waits_until_its_stream_can_be_read_and_is_known_then(
    connect: Callable[[], Sender], daemon: Daemon, sender: Sender
) -> None:
    sender.send(chunk("one", 1))
    assert sender.acks(1) == ["one"]
    daemon.kill()
    with bad_sector(max((daemon.data / "fluent").glob("*.ndjson"))):
        daemon.start()
        again = connect()
        again.send(chunk("one", 1), chunk("two", 2))
        eventually(lambda: asked(daemon, 1)["failing"][0]["attempts"] > 3, "more tries")
    assert again.acks(2) == ["one", "two"]
    assert stored(daemon) == [1, 2]


class Persistent(threading.Thread):
    """Sends chunks, several at a time; repeats those without an ack, on a new connection."""

    def __init__(self, root: Path, name: str, count: int) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.sent = {
            f"{name}-{n}": chunk(f"{name}-{n}", f"{name}-{n}a", f"{name}-{n}b")
            for n in range(count)
        }
        self.unacknowledged = dict(self.sent)
        self.acknowledged = 0
        self.gives_up = False
        self._pause = threading.Event()

    def run(self) -> None:
        while self.unacknowledged and not self.gives_up:
            try:
                self._converse()
            except OSError:
                self._pause.wait(0.02)  # the daemon is starting again

    def _converse(self) -> None:
        sender = Sender(self.root)
        with sender.socket:
            waiting = list(self.unacknowledged.items())
            while waiting:
                some, waiting = waiting[:5], waiting[5:]
                sender.send(*(message for _, message in some))
                for _ in some:
                    (name,) = sender.acks(1)
                    del self.unacknowledged[name]
                    self.acknowledged += 1


def acknowledged(senders: list[Persistent]) -> int:
    return sum(each.acknowledged for each in senders)


def test_whatever_is_acknowledged_is_stored_once_however_often_the_daemon_is_killed(
    root: Path, daemon: Daemon
) -> None:
    senders = [Persistent(root, name, 400) for name in "abcdef"]
    for each in senders:
        each.start()
    try:
        for kill in range(1, 9):
            eventually(lambda: acknowledged(senders) >= kill * 150)  # noqa: B023 - called here
            daemon.kill()
            daemon.start()
        for each in senders:
            each.join(PATIENCE_S)
            assert not each.unacknowledged
    finally:
        for each in senders:
            each.gives_up = True
            each.join(PATIENCE_S)
    wanted = Counter(f"{name}{part}" for each in senders for name in each.sent for part in "ab")
    assert Counter(stored(daemon)) == wanted
    daemon.cli("verify")
