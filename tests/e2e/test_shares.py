"""Users who share a daemon: none of them takes what another one, or the daemon, needs."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon, Producer, eventually
from tests.users import acting_as

ATTACKER, VICTIM = 61_001, 61_002

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to connect as other users")


def connect_as(uid: int, daemon: Daemon) -> Producer:
    daemon.socket.parent.chmod(0o755)
    with acting_as(uid):
        return daemon.connect()


def is_served(producer: Producer, stream: str) -> bool:
    """Whether a record of this sender is acknowledged."""
    if "welcome" not in producer.hello(stream=stream):
        return False
    producer.send(b'{"n":1}\n')
    producer.wait_for_ack(1)
    return True


CONNECTIONS = "[limits]\nmax_connections = 40\nreserved_percent = 10\nhello_timeout = '1h'\n"


@as_root
@pytest.mark.parametrize("begins", [b"", b'{"_hello":1,"str', b'{"_hello":1}\n', b"x\n"])
def test_a_user_with_all_connections_gives_way_to_others(
    make_daemon: Callable[[str], Daemon], begins: bytes
) -> None:
    daemon = make_daemon(CONNECTIONS)
    for _ in range(60):
        connect_as(ATTACKER, daemon).send(begins)
    eventually(lambda: "max_connections_reached" in daemon.events(), "the attack to be complete")
    daemon.cli("status")
    for number in range(18):
        assert is_served(connect_as(VICTIM, daemon), f"victim-{number}")
    assert is_served(daemon.connect(), "root")
    daemon.cli("status")


@as_root
def test_who_gives_way_is_told_so_and_its_records_are_kept(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(CONNECTIONS)
    first = connect_as(ATTACKER, daemon)
    assert is_served(first, "one")
    for _ in range(35):
        assert is_served(connect_as(ATTACKER, daemon), "others")
    assert is_served(connect_as(VICTIM, daemon), "victim")
    assert first.answer() == {"goodbye": "too_many_connections"}
    assert first.answer() == {}
    assert daemon.values("one") == [{"n": 1}]


@as_root
def test_a_sender_without_a_hello_that_gives_way_gets_an_error(
    make_daemon: Callable[[str], Daemon],
) -> None:
    # Without an error, end of file would mean to it that all is on disk.
    daemon = make_daemon(CONNECTIONS)
    first, second = connect_as(ATTACKER, daemon), connect_as(ATTACKER, daemon)
    first.send(b"one\nhalf")
    second.send(b"ha")
    eventually(lambda: len(daemon.values()) == 1, "the first line")
    for _ in range(34):
        assert is_served(connect_as(ATTACKER, daemon), "others")
    for _ in range(2):
        assert is_served(connect_as(VICTIM, daemon), "victim")
    for producer in (first, second):
        assert producer.answer()["error"] == "too_many_connections"


@as_root
def test_whom_the_daemon_cannot_even_let_wait_is_told_so(root: Path) -> None:
    daemon = Daemon(root, CONNECTIONS, open_files_max=64)
    with contextlib.closing(daemon):
        daemon.start()
        attackers = [connect_as(ATTACKER, daemon) for _ in range(40)]
        for attacker in attackers:
            with contextlib.suppress(BrokenPipeError):
                attacker.send(b'{"_hello":1,"stream":"app"}\n')
        eventually(lambda: "connection_refused" in daemon.events(), "the first to be refused")
        assert is_served(connect_as(VICTIM, daemon), "victim")
        answers = [attacker.answer() for attacker in attackers[-10:-4]]
        assert {"goodbye": "too_many_connections"} in answers


STREAMS = "[limits]\nmax_streams = 40\nreserved_percent = 10\n"


def test_a_hello_takes_a_name_only_while_its_connection_is_open(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(STREAMS)
    for number in range(100):
        for said in ({}, {"producer": "p"}):
            producer = daemon.connect()
            assert "welcome" in producer.hello(stream=f"squat-{number}", **said)
            producer.close()
    assert {path.name for path in daemon.data.iterdir() if not path.name.startswith(".")} == set()
    assert is_served(daemon.connect(), "app")
    assert b'"streams":1,' in daemon.cli("status", "--json").stdout


def test_a_stream_with_a_durable_record_is_there_for_good(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_streams = 1\n")
    producer = daemon.connect()
    assert is_served(producer, "one")
    producer.close()
    assert daemon.connect().hello(stream="two")["error"] == "too_many_streams"
    assert "welcome" in daemon.connect().hello(stream="one")


@as_root
def test_a_user_that_takes_all_names_leaves_some_to_others(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(STREAMS)
    attacker = None
    for number in range(40):
        attacker = connect_as(ATTACKER, daemon)
        if not is_served(attacker, f"squat-{number}"):
            break
    assert number == 33  # nine tenths of the 36 that are not reserved, rounded up
    assert is_served(connect_as(VICTIM, daemon), "victim")
    for number in range(4):
        assert is_served(daemon.connect(), f"root-{number}")


@as_root
def test_a_user_whose_records_fill_the_memory_does_not_hold_up_others(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('[limits]\nmax_record = "256KiB"\nmax_pending = "1MiB"\n')
    begun = b"x" * (200 * 1024)  # unfinished records, which no commit frees
    for _ in range(8):
        attacker = connect_as(ATTACKER, daemon)
        attacker.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            attacker.socket.send(begun)
    eventually(lambda: pending_bytes(daemon) > 800 * 1024, "the memory to be full")
    for uid in (VICTIM, 0):
        producer = connect_as(uid, daemon)
        producer.hello(stream="app")
        for number in range(1, 20):
            producer.send(b"y" * 10_000 + b"\n")
            producer.wait_for_ack(number)


def pending_bytes(daemon: Daemon) -> int:
    status = subprocess.run(
        [sys.executable, "-m", "logengine", "status", "--json", "--socket", str(daemon.socket)],
        capture_output=True,
        check=False,  # it exits with 1 while the memory is full
    )
    return int(json.loads(status.stdout)["pending_bytes"])


def test_a_connection_that_waits_is_asked_for_the_status_nevertheless(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_connections = 2\n")
    inside = [daemon.connect() for _ in range(2)]
    for producer in inside:
        assert "welcome" in producer.hello()
    waiting = daemon.connect()
    waiting.send(b'{"_hello":1}\n')
    daemon.cli("status")
    inside[0].close()
    assert "welcome" in waiting.answer()


def test_too_few_open_files_are_refused_at_the_start(root: Path) -> None:
    daemon = Daemon(root, open_files_max=63)
    with contextlib.closing(daemon), pytest.raises(AssertionError, match="expected at least 64"):
        daemon.start()


# A disk that is slow with large segments: their fsyncs wait for a file.
SLOW = """
import os, sys, time
real = os.fsync
def fsync(descriptor):
    if os.fstat(descriptor).st_size > 100_000:
        open({begun!r}, "w").close()
        while not os.path.exists({end!r}):
            time.sleep(0.005)
    real(descriptor)
os.fsync = fsync
sys.argv[0] = "logengine"
from logengine.cli import main
main()
"""


@as_root
def test_one_record_is_acknowledged_while_megabytes_of_another_user_are_being_written(
    root: Path,
) -> None:
    begun, end = root / "begun", root / "end"
    # Nobody has more than 10 KiB in a small batch, and no segment of it is as large as that.
    config = "[commit]\nmax_batch = '320KiB'\n"
    daemon = Daemon(root, config, program=("-c", SLOW.format(begun=str(begun), end=str(end))))
    with contextlib.closing(daemon):
        daemon.start()
        loud, quiet = connect_as(ATTACKER, daemon), connect_as(VICTIM, daemon)
        loud.hello(stream="loud")
        quiet.hello(stream="quiet")
        loud.send(b'{"pad":"%s"}\n' % (b"a" * 1000) * 10_000)
        eventually(begun.exists, "the fsync of a large segment")
        for number in range(1, 21):
            quiet.send(b'{"n":%d}\n' % number)
            quiet.wait_for_ack(number)
        assert len(daemon.values("loud")) < 10_000
        end.touch()
        loud.wait_for_ack(10_000)
        assert len(daemon.values("loud")) == 10_000
        assert daemon.values("quiet") == [{"n": number} for number in range(1, 21)]
