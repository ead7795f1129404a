"""The load generator sends what it should, and says when it is warm."""

import socket
import threading
from pathlib import Path

import msgspec

import logengine
from benchmarks.engine import Engine
from benchmarks.paced import Load, Target, pace
from tests.daemon import eventually

LOAD = Load(connections=3, records_per_s=200, duration_s=0.5, warm_up_s=0.1)


def test_a_daemon_acknowledges_all_that_is_sent_to_it(root: Path) -> None:
    warm: list[bool] = []
    with Engine().running(root) as running:
        paced = running.pace(LOAD, lambda: warm.append(True))
        assert warm == [True]
        assert (paced.unacked, paced.held_back) == (0, 0)
        assert 0 < paced.p50_ms <= paced.p99_ms <= paced.greatest_ms
        assert running.totals().batches > 0
        stored = list(logengine.read("paced", data=running.data))
    assert len(stored) == LOAD.records == 100


def test_a_target_that_acknowledges_nothing_gets_the_opening_and_the_records(root: Path) -> None:
    load = Load(connections=1, records_per_s=200, duration_s=0.5, records_each=2, record_bytes=128)
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        listener.listen()

        def read_all() -> None:
            with listener.accept()[0] as connection:
                # journald closes its side, too.
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received.extend(chunk)

        reader = threading.Thread(target=read_all)
        reader.start()
        target = Target(str(root / "socket"), opening="first\n", acknowledges=False)
        paced = pace(load, target)
        reader.join()
    assert paced.p50_ms == paced.greatest_ms == paced.unacked == 0
    opening, *records = bytes(received).splitlines(keepends=True)
    assert opening == b"first\n"
    assert [len(record) for record in records] == [128] * (load.records - paced.held_back)


def test_a_load_that_ends_before_it_is_warm_is_measured_all_the_same(root: Path) -> None:
    warm: list[bool] = []
    with Engine().running(root) as running:
        load = msgspec.structs.replace(LOAD, warm_up_s=60.0)
        paced = running.pace(load, lambda: warm.append(True))
    assert warm == []
    assert (paced.unacked, paced.held_back, paced.p50_ms) == (0, 0, 0)


def test_a_daemon_that_is_sent_to_without_a_hello_stores_all(root: Path) -> None:
    with Engine().running(root) as running:
        paced = pace(LOAD, Target(str(running.path), opening="", acknowledges=False))
        stored = LOAD.records - paced.held_back
        eventually(
            lambda: len(list(logengine.read("default", data=running.data))) == stored,
            "all records in the daemon's own stream",
        )
