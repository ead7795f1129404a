"""A producer is a name of one user in one stream, and the daemon says what it knows of it."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET, structs

import logengine
from logengine.client.settings import process_producer
from logengine.disk.segment_file import list_segments, read_header
from logengine.format.segment import Header, encode_header
from tests.daemon import Daemon, Producer
from tests.users import acting_as

OTHER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as several users")


@pytest.fixture(autouse=True)
def _open_to_all(root: Path) -> None:
    root.chmod(0o755)


def connect_as(daemon: Daemon, uid: int) -> Producer:
    with acting_as(uid):
        return daemon.connect()


def send_one(producer: Producer, name: str, **said: int) -> None:
    """One record of a producer whose process then ends."""
    number = producer.hello(stream="app", producer=name, **said)["next"]
    producer.send(b'{"p":"%s"}\n' % name.encode())
    producer.wait_for_ack(number)
    producer.close()


def newest(daemon: Daemon) -> Header:
    return read_header(daemon.data / "app", list_segments(daemon.data / "app")[-1])


@needs_root
def test_one_name_under_two_uids_is_two_producers(daemon: Daemon) -> None:
    own, other = connect_as(daemon, 0), connect_as(daemon, OTHER)
    assert own.hello(stream="app", producer="web")["next"] == 1
    own.send(b'{"uid":0,"n":1}\n{"uid":0,"n":2}\n')
    own.wait_for_ack(2)
    other.hello(stream="app", producer="web", first=10**9)
    other.send(b'{"uid":1,"n":1}\n')
    other.wait_for_ack(10**9)
    own.send(b'{"uid":0,"n":3}\n')  # nobody has fenced it
    own.wait_for_ack(3)
    daemon.kill()
    daemon.start()
    for uid, known in ((0, 3), (OTHER, 10**9)):
        welcome = connect_as(daemon, uid).hello(stream="app", producer="web")
        assert (welcome["next"], welcome["known"]) == (known + 1, known)
    assert newest(daemon).producers_of == {0: {"web": 3}, OTHER: {"web": 10**9}}
    assert [value["uid"] for value in daemon.values("app")] == [0, 0, 1, 0]


@needs_root
def test_a_connection_fences_one_of_its_own_user_only(daemon: Daemon) -> None:
    others = [connect_as(daemon, OTHER) for _ in range(2)]
    own = connect_as(daemon, 0)
    others[0].hello(stream="app", producer="web")
    own.hello(stream="app", producer="web")
    others[1].hello(stream="app", producer="web")
    assert others[0].answer() == {"error": "fenced"}
    for producer in (own, others[1]):
        producer.send(b"one\n")
        producer.wait_for_ack(1)


@needs_root
def test_a_flood_of_names_takes_nothing_from_another_user(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('[limits]\nmax_producer_names = "4KiB"\n')
    send_one(connect_as(daemon, 0), "nightly")
    for number in range(60):
        send_one(connect_as(daemon, OTHER), f"{number}" + "\U0001f600" * 100)
    header = newest(daemon)
    assert set(header.producers_of or {}) == {0, OTHER}
    assert len((header.producers_of or {})[OTHER]) < 10
    first_line = (daemon.data / "app" / header.file_name).read_bytes().split(b"\n")[0]
    assert len(first_line) < 4096 + 500
    assert connect_as(daemon, 0).hello(stream="app", producer="nightly")["known"] == 1


def test_names_made_up_for_a_process_do_not_push_out_given_ones(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_producers = 8\n")
    send_one(daemon.connect(), "nightly")
    for _ in range(20):
        send_one(daemon.connect(), process_producer())
    assert daemon.connect().hello(stream="app", producer="nightly")["next"] == 2


def test_a_producer_with_a_connection_is_not_forgotten_and_others_are_told(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_producers = 4\n")
    connected = daemon.connect()
    connected.hello(stream="app", producer="connected")
    connected.send(b"one\n")
    connected.wait_for_ack(1)
    for number in range(10):
        send_one(daemon.connect(), f"n{number}")
    connected.send(b"two\n")
    connected.wait_for_ack(2)
    again = daemon.connect()
    welcome = again.hello(stream="app", producer="connected", first=2)
    assert (welcome["next"], welcome["known"]) == (3, 2)
    welcome = daemon.connect().hello(stream="app", producer="n0", first=2)
    assert (welcome["next"], welcome["known"]) == (2, 0)
    assert "known" not in daemon.connect().hello(stream="app")


def test_a_name_that_was_forgotten_and_is_used_again_is_no_damage(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_producers = 4\n")
    first = daemon.connect()
    first.hello(stream="app", producer="again", first=7)
    # Too much to be written again: what follows is in a segment of its own.
    first.send(b'{"x":"%s"}\n' % (b"x" * 100_000))
    first.wait_for_ack(7)
    first.close()
    for name in ("a", "b", "c", "d", "again"):
        send_one(daemon.connect(), name)
    daemon.stop()
    headers = [
        read_header(daemon.data / "app", each) for each in list_segments(daemon.data / "app")
    ]
    numbers = [(each.producers_of or {})[os.geteuid()].get("again") for each in headers]
    assert numbers == [7, 1]
    verified = daemon.cli("verify")
    assert b"it was forgotten in between" in verified.stdout + verified.stderr
    daemon.cli("repair", "app")
    assert [read_header(daemon.data / "app", each.first) for each in headers] == headers


def test_a_producer_of_an_old_file_continues_and_then_belongs_to_its_user(
    daemon: Daemon,
) -> None:
    send_one(daemon.connect(), "web")
    daemon.stop()
    (first,) = list_segments(daemon.data / "app")
    path = daemon.data / "app" / read_header(daemon.data / "app", first).file_name
    _, body = path.read_bytes().split(b"\n", 1)
    old = _old_header(newest(daemon), {"web": 7, "other": 3})
    path.write_bytes(old + b"\n" + body)
    daemon.start()
    producer = daemon.connect()
    welcome = producer.hello(stream="app", producer="web", first=2)
    assert (welcome["next"], welcome["known"]) == (8, 7)
    producer.send(b"eight\n")
    producer.wait_for_ack(8)
    header = newest(daemon)
    assert header.producers == {"web": 7, "other": 3}
    assert header.producers_of == {os.getuid(): {"web": 8}}
    assert daemon.connect().hello(stream="app", producer="web")["next"] == 9
    daemon.cli("verify")


def _old_header(header: Header, producers: dict[str, int]) -> bytes:
    """The header line of a version that did not know uids."""
    old = structs.replace(header, producers=producers, producers_of=UNSET)
    return encode_header(old).removesuffix(b"\n")


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@pytest.mark.parametrize("on_forgotten", ["warn", "raise"])
def test_a_client_whose_producer_was_forgotten_says_so(
    daemon: Daemon, kind: str, on_forgotten: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def lose_what_is_stored() -> None:
        daemon.stop()
        shutil.rmtree(daemon.data)
        daemon.start()

    options: dict[str, Any] = {
        "socket": daemon.socket,
        "producer": "web",
        "on_forgotten": on_forgotten,
    }

    def run_client() -> None:
        client = logengine.Client("app", **options)
        try:
            client.send({"n": 1})
            client.flush(20)
            lose_what_is_stored()
            client.send({"n": 2})
            client.flush(20)
        finally:
            client.close()

    async def run_async_client() -> None:
        async with logengine.AsyncClient("app", **options) as client:
            await client.send({"n": 1})
            await client.flush(20)
            await asyncio.to_thread(lose_what_is_stored)
            await client.send({"n": 2})
            await client.flush(20)

    def run() -> None:
        if kind == "Client":
            run_client()
        else:
            asyncio.run(run_async_client())

    if on_forgotten == "raise":
        with pytest.raises(logengine.ProducerForgotten, match="no records of producer 'web'"):
            run()
        return
    run()
    assert daemon.values("app") == [{"n": 2}]
    assert capfd.readouterr().err.count("the daemon knows no records of producer 'web'") == 1
