"""Every corner of the protocol, against a real daemon."""

import array
import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, Producer, eventually

SMALL = """
[limits]
max_record = "64KiB"
max_pending = "1MiB"
max_pending_stream = "256KiB"
"""
IMPATIENT = SMALL + 'stall_timeout = "300ms"\n'


def test_end_of_file_means_on_disk(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.send(b'{"a":1}\nplain\nno newline')
    assert producer.end() == b""
    assert daemon.values() == [{"a": 1}, {"message": "plain"}, {"message": "no newline"}]


def test_a_sender_that_closes_at_once_is_heard(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.send(b'{"a":1}\n{"a":2}\n')
    producer.close()
    eventually(lambda: daemon.values() == [{"a": 1}, {"a": 2}])


def test_the_envelope_is_the_kernels_and_not_the_senders(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.send(b'{"_pid":1,"_uid":99}\n')
    producer.end()
    (record,) = daemon.records()
    assert (record["_pid"], record["_uid"], record["_gid"]) == (
        os.getpid(),
        os.getuid(),
        os.getgid(),
    )
    assert record["_comm"] == Path("/proc/self/comm").read_text().strip()
    assert (record["__pid"], record["__uid"]) == (1, 99)


def test_a_producer_is_acknowledged_and_resumes_where_it_stopped(daemon: Daemon) -> None:
    producer = daemon.connect()
    welcome = producer.hello(stream="app", producer="web-1")
    assert welcome == {"welcome": 1, "next": 1, "max_record": 1048576, "known": 0}
    producer.send(b'{"n":1}\n\n{"n":2}\n')
    producer.wait_for_ack(2)
    assert [value["n"] for value in daemon.values("app")] == [1, 2]
    producer.close()
    again = daemon.connect()
    assert again.hello(stream="app", producer="web-1")["next"] == 3
    assert daemon.connect().hello(stream="other", producer="web-1")["next"] == 1


def test_a_resumed_producer_is_known_after_a_kill(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.hello(producer="p")
    producer.send(b"one\ntwo\n")
    producer.wait_for_ack(2)
    daemon.kill()
    daemon.start()
    assert daemon.connect().hello(producer="p")["next"] == 3


def test_a_forgotten_producer_goes_on_from_its_own_first(daemon: Daemon) -> None:
    assert daemon.connect().hello(producer="p", first=41)["next"] == 41


def test_first_below_what_is_durable_does_not_double(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.hello(producer="p")
    producer.send(b"one\ntwo\n")
    producer.wait_for_ack(2)
    assert daemon.connect().hello(producer="p", first=1)["next"] == 3


def test_without_a_producer_numbers_end_with_the_connection(daemon: Daemon) -> None:
    for _ in range(2):
        producer = daemon.connect()
        assert producer.hello(stream="app")["next"] == 1
        producer.send(b"x\n")
        producer.wait_for_ack(1)


def test_records_sent_right_behind_the_hello_count(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.send(b'{"_hello":1,"producer":"p"}\n{"n":1}\n{"n":2}\n')
    assert producer.answer()["next"] == 1
    producer.wait_for_ack(2)
    assert daemon.values() == [{"n": 1}, {"n": 2}]


def test_a_second_connection_of_a_producer_fences_the_first(daemon: Daemon) -> None:
    first = daemon.connect()
    first.hello(producer="p")
    first.send(b"one\n" * 500)
    second = daemon.connect()
    next_number = second.hello(producer="p")["next"]
    answers = []
    while answer := first.answer():
        answers.append(answer)
    assert answers[-1] == {"error": "fenced"}
    assert len(daemon.records()) == next_number - 1
    second.send(b"two\n")
    second.wait_for_ack(next_number)
    assert len(daemon.records()) == next_number


def test_a_producer_that_only_says_hello_and_closes_hears_the_end(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.send(b'{"_hello":1,"producer":"p"}')
    welcome = {"welcome": 1, "next": 1, "max_record": 1048576, "known": 0}
    assert json.loads(producer.end()) == welcome


def test_half_a_record_of_a_producer_comes_again_whole(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.hello(producer="p")
    producer.send(b'{"n":1}\n{"n":')
    assert b'{"ack":1}' in producer.end()
    again = daemon.connect()
    assert again.hello(producer="p")["next"] == 2
    again.send(b'{"n":2}\n')
    again.wait_for_ack(2)
    assert daemon.values() == [{"n": 1}, {"n": 2}]


def test_a_stream_that_begins_with_nothing_but_a_refused_record_is_whole(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(SMALL)
    producer = daemon.connect()
    producer.hello(stream="app", producer="web-1")
    producer.send(b"x" * 70_000 + b"\n")
    assert producer.answer() == {"error": "record_too_large", "record": 1, "limit": 65536}
    producer.wait_for_ack(1)
    daemon.cli("verify")
    assert daemon.cli("cat", "app").stdout == b""
    daemon.stop()
    daemon.start()
    producer = daemon.connect()
    assert producer.hello(stream="app", producer="web-1")["next"] == 2
    producer.send(b'{"n":2}\n')
    producer.wait_for_ack(2)
    assert daemon.values("app") == [{"n": 2}]
    daemon.cli("verify")


def test_a_record_too_large_is_refused_by_its_number_and_the_rest_is_taken(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(SMALL)
    producer = daemon.connect()
    assert producer.hello(producer="p")["max_record"] == 65536
    producer.send(b"one\n" + b"x" * 65537 + b"\nthree\n")
    answers = [producer.answer()]
    while answers[-1].get("ack") != 3:
        answers.append(producer.answer())
    assert {"error": "record_too_large", "record": 2, "limit": 65536} in answers
    assert daemon.values() == [{"message": "one"}, {"message": "three"}]
    producer.send(b"x" * 70000 + b"\n")
    assert producer.answer() == {"error": "record_too_large", "record": 4, "limit": 65536}
    producer.wait_for_ack(4)
    assert daemon.connect().hello(producer="p")["next"] == 5


def test_a_bad_hello_is_answered_and_the_connection_closed(daemon: Daemon) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"_hello": 7}, "unsupported_version"),
        ({"stream": "../x"}, "invalid_stream"),
        ({"producer": ""}, "invalid_producer"),
    ]
    for said, error in wrong:
        producer = daemon.connect()
        answer = producer.hello(**said)
        assert answer["error"] == error
        assert answer["expected"]
        assert producer.answer() == {}
    assert not (daemon.data.parent / "x").exists()


def test_one_more_stream_than_max_streams_is_refused(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_streams = 1\n")
    producer = daemon.connect()
    producer.hello(stream="one")
    producer.send(b"x\n")
    producer.wait_for_ack(1)
    assert daemon.connect().hello(stream="two")["error"] == "too_many_streams"
    assert "welcome" in daemon.connect().hello(stream="one")


def test_a_hello_that_is_not_finished_in_time_ends_the_connection(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nhello_timeout = '100ms'\n")
    silent, text = daemon.connect(), daemon.connect()
    text.send(b"a line that is no hello, and whose rest comes")
    for beginning in (b'{"_hello":1,"str', b' { "_status"', b"{", b"\n\n \t"):
        slow = daemon.connect()
        slow.send(beginning)
        assert slow.answer()["error"] == "hello_timeout"
        assert slow.answer() == {}
    text.send(b" late\n")
    assert text.end() == b""
    assert daemon.values() == [{"message": "a line that is no hello, and whose rest comes late"}]
    assert "welcome" in silent.hello()


def test_a_sender_that_never_reads_its_acks_blocks_nobody(daemon: Daemon) -> None:
    deaf = daemon.connect()
    deaf.hello(stream="deaf")
    for _ in range(300):
        deaf.send(b"x\n" * 100)
    other = daemon.connect()
    other.hello(stream="other")
    for number in range(1, 200):
        other.send(b"y\n")
        other.wait_for_ack(number)
    eventually(lambda: len(daemon.records("deaf")) == 30000)
    # It gets the latest ack, not one for each batch, as soon as it reads.
    deaf.wait_for_ack(30000)


def test_what_was_sent_counts_although_nobody_reads_the_acks(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.hello()
    for _ in range(50):
        producer.send(b"x\n" * 1000)
    producer.close()
    eventually(lambda: len(daemon.records()) == 50000)


def test_past_max_pending_senders_wait_and_go_on(make_daemon: Callable[[str], Daemon]) -> None:
    daemon = make_daemon(SMALL)
    producers = [daemon.connect() for _ in range(8)]
    for number, producer in enumerate(producers):
        producer.hello(stream=f"s{number}")
    for _ in range(20):
        for producer in producers:
            producer.send((b"x" * 999 + b"\n") * 100)
    for producer in producers:
        producer.wait_for_ack(2000)


def test_unfinished_records_that_fill_the_memory_are_finished_one_by_one(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(SMALL)
    halves = [daemon.connect() for _ in range(20)]
    for producer in halves:
        producer.hello()
        producer.send(b"h" * 60000)
    other = daemon.connect()
    for producer in halves[3:]:
        producer.send(b"\n")
        producer.wait_for_ack(1)
    other.send(b"late\n")
    other.end()
    assert {"message": "late"} in daemon.values()


def test_whoever_never_finishes_its_record_is_disconnected_in_the_end(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(IMPATIENT)
    for _ in range(20):
        stalled = daemon.connect()
        stalled.send(b"h" * 60000)
    eventually(lambda: "stalled_sender_closed" in daemon.events())
    other = daemon.connect()
    other.hello()
    other.send(b"late\n")
    other.wait_for_ack(1)


def test_descriptors_that_nobody_asked_for_are_not_kept(daemon: Daemon) -> None:
    assert daemon.process is not None
    producer = daemon.connect()
    producer.hello()
    producer.send(b"x\n")
    producer.wait_for_ack(1)
    descriptors = Path(f"/proc/{daemon.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for number in range(2, 50):
        producer.socket.sendmsg(
            [b"x\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
        )
        producer.wait_for_ack(number)
    # The daemon may have opened a writer ahead.
    assert len(list(descriptors.iterdir())) <= before + 2


def test_a_thousand_idle_connections_cost_little(daemon: Daemon) -> None:
    assert daemon.process is not None

    def resident_kib() -> int:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()  # type: ignore[union-attr]
        return int(status.split("VmRSS:")[1].split()[0])

    before = resident_kib()
    idle = [daemon.connect() for _ in range(1000)]
    producer = daemon.connect()
    producer.hello()
    producer.send(b"x\n")
    producer.wait_for_ack(1)
    assert resident_kib() - before < 20 * 1024
    for connection in idle:
        connection.close()


def test_stopping_commits_what_was_sent_and_says_goodbye(daemon: Daemon) -> None:
    silent = [daemon.connect() for _ in range(20)]
    for producer in silent:
        producer.send(b"x\n" * 1000)
    asked = daemon.connect()
    asked.hello(stream="asked", producer="p")
    asked.send(b"y\n" * 1000)
    assert daemon.stop() == 0
    answers = [json.loads(line) for line in asked._answers.read().splitlines()]
    assert answers[-2:] == [{"ack": 1000}, {"goodbye": "stopping"}]
    assert len(daemon.records()) == 20000
    assert not daemon.socket.exists()
    assert daemon.events()[-1] == "stopped"


def test_stopping_stores_no_half_record_of_a_sender_that_is_told(daemon: Daemon) -> None:
    told, silent = daemon.connect(), daemon.connect()
    told.hello(stream="told")
    told.send(b'{"n":1}\n{"n":')
    silent.send(b'{"n":1}\nhalf')
    told.wait_for_ack(1)
    assert daemon.stop() == 0
    assert daemon.values("told") == [{"n": 1}]
    # Of one that is told nothing, what was received is all there will ever be.
    assert daemon.values() == [{"n": 1}, {"message": "half"}]


def test_random_bytes_end_neither_the_daemon_nor_others(daemon: Daemon) -> None:
    other = daemon.connect()
    other.hello(stream="other")
    for number in range(1, 101):
        hostile: Producer = daemon.connect()
        hostile.send(os.urandom(5000) + b"\n" + os.urandom(20))
        if number % 2:
            hostile.close()
        else:
            hostile.end()
        other.send(b"fine\n")
        other.wait_for_ack(number)
    assert daemon.stop() == 0
    daemon.cli("verify")


def test_all_of_a_sender_that_hung_up_on_an_answer_is_read(daemon: Daemon) -> None:
    # The close of a socket with something unread is an error at the other end, at which
    # libuv stops polling: more than one read is still to come then.
    assert daemon.process is not None
    for said in ({"stream": "app"}, {"stream": "app"}, {}):
        sender = daemon.connect()
        sender.send(json.dumps({"_hello": 1} | said).encode() + b"\n")
        select.select([sender.socket], [], [])
        daemon.process.send_signal(signal.SIGSTOP)
        sender.socket.setblocking(False)
        lines = b"x" * 99 + b"\n"
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sender.socket.send((lines * 100)[sent % len(lines) :])
        sender.close()
        daemon.process.send_signal(signal.SIGCONT)
    stored = 2 * -(-sent // 100)
    eventually(lambda: len(daemon.values("app")) == stored, "all to be stored")
    assert daemon.stop() == 0
    assert "stop_timeout" not in daemon.events()
    assert len(daemon.values()) == stored / 2
