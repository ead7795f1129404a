"""What a real daemon does to those who send more than they may."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.crash.rig.walker import decompressed
from tests.daemon import Daemon, Producer, eventually

MakeDaemon = Callable[[str], Daemon]
# So slow that whoever must wait for it waits longer than any test.
STREAM_QUOTA = """
[stream.tight.quota]
records_per_s = 1
burst = "5s"
over = "{over}"
"""
USER_QUOTA = f"""
[uid.{os.geteuid()}.quota]
records_per_s = 1
burst = "5s"
over = "{{over}}"
"""
BLOCKS = STREAM_QUOTA.format(over="block")
DROPS = STREAM_QUOTA.format(over="drop")
RECORDS = b"".join(b'{"n":%d}\n' % number for number in range(1, 101))


def values(daemon: Daemon, stream: str) -> list[dict[str, Any]]:
    """What senders sent to it, without what the daemon added."""
    return [value for value in daemon.values(stream) if "n" in value]


def reports(daemon: Daemon, stream: str) -> list[dict[str, Any]]:
    return [value for value in daemon.values(stream) if "n" not in value]


def dropped_numbers(sender: Producer, last: int) -> set[int]:
    """The numbers that the daemon said it dropped, up to the ack of `last`."""
    dropped: set[int] = set()
    acked = 0
    while acked < last:
        answer = sender.answer()
        if "error" in answer:
            assert answer["error"] == "over_quota"
            numbers = set(range(answer["first"], answer["last"] + 1))
            assert not dropped & numbers
            dropped |= numbers
        acked = answer.get("ack", acked)
    assert acked == last
    return dropped


def waits(daemon: Daemon) -> None:
    """Returns when a sender is held up."""
    eventually(lambda: b"1 of them waiting" in daemon.cli("status").stdout, "a sender to be held")


def test_who_is_over_a_quota_that_blocks_waits_alone(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(BLOCKS)
    tight = daemon.connect()
    tight.hello(stream="tight")
    tight.send(RECORDS)
    tight.wait_for_ack(5)
    waits(daemon)
    free = daemon.connect()
    free.hello(stream="free")
    free.send(RECORDS)
    free.wait_for_ack(100)
    # A new connection is read as far as its hello, which may name another stream.
    assert daemon.connect().hello(stream="tight")["next"] == 1
    assert 5 <= len(values(daemon, "tight")) < 100
    # It gets its tokens, one by one.
    tight.wait_for_ack(len(values(daemon, "tight")) + 1)
    # A stop takes what was sent, whatever the quota.
    assert daemon.stop() == 0
    assert [value["n"] for value in values(daemon, "tight")] == list(range(1, 101))
    assert reports(daemon, "tight") == []


def test_connecting_again_for_each_record_is_no_way_around(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(USER_QUOTA.format(over="block"))
    senders = [daemon.connect() for _ in range(30)]
    for sender in senders:
        sender.send(b"one\n")
        sender.socket.shutdown(1)
    eventually(lambda: len(daemon.records()) >= 5, "a burst to be taken")
    eventually(lambda: b"of them waiting" in daemon.cli("status").stdout, "the rest to wait")
    assert len(daemon.records()) < 30
    assert daemon.stop() == 0
    assert len(daemon.records()) == 30


@pytest.mark.parametrize(
    "sent",
    [b"\n" * 200, b'{"n":1}\n' + b"\n" * 200, b'{"_hello":1}\n' + b"\n" * 200],
    ids=["blank lines", "blank lines after a record", "blank lines after a hello"],
)
def test_blank_lines_use_up_the_quota_of_their_user(make_daemon: MakeDaemon, sent: bytes) -> None:
    daemon = make_daemon(USER_QUOTA.format(over="block"))
    idle = daemon.connect()
    idle.send(sent)
    idle.send(b'{"n":2}\n')
    waits(daemon)
    assert {"n": 2} not in [{"n": value["n"]} for value in daemon.values("app")]


def test_refused_records_use_up_the_quota_of_their_user(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("[limits]\nmax_record = '1KiB'\n" + USER_QUOTA.format(over="block"))
    sender = daemon.connect()
    sender.send((b"x" * 2000 + b"\n") * 50)
    waits(daemon)
    status = json.loads(daemon.cli("status", "--json").stdout)
    assert 1 <= status["totals"]["refused_records"] <= 10


def test_what_a_quota_drops_is_answered_counted_and_told_of(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(DROPS)
    tight = daemon.connect()
    assert tight.hello(stream="tight", producer="p")["next"] == 1
    tight.send(RECORDS)
    dropped = dropped_numbers(tight, 100)
    assert 0 < len(dropped) <= 95
    # What was dropped has used its numbers, also for who connects again.
    assert daemon.connect().hello(stream="tight", producer="p")["next"] == 101
    assert f"over a quota: {len(dropped)} records".encode() in daemon.cli("status").stdout
    assert daemon.stop() == 0
    stored = {value["n"] for value in values(daemon, "tight")}
    assert stored == set(range(1, 101)) - dropped
    (report,) = reports(daemon, "tight")
    assert report.pop("bytes") > len(dropped)
    assert report == {
        "level": "warning",
        "event": "records_dropped",
        "reason": "over_quota",
        "quota": "stream",
        "limit": "records_per_s",
        "uid": os.geteuid(),
        "records": len(dropped),
    }
    daemon.cli("verify")


def test_dropped_records_are_told_of_once_an_interval(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("[quota]\nreport_every = '100ms'\n" + DROPS)
    began_s = time.monotonic()
    sender = daemon.connect()
    sender.hello(stream="tight")
    dropped = 0
    for turn in range(1, 4):
        sender.send(RECORDS)
        dropped += len(dropped_numbers(sender, turn * 100))
        eventually(
            lambda: sum(report["records"] for report in reports(daemon, "tight")) == dropped,  # noqa: B023
            "the report",
        )
    assert len(reports(daemon, "tight")) <= 1 + (time.monotonic() - began_s) / 0.1


def test_what_was_dropped_before_a_stop_that_runs_out_of_time_is_in_the_log(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon('stop_timeout = "300ms"\n[quota]\nreport_every = "1h"\n' + DROPS)
    sender = daemon.connect()
    sender.hello(stream="tight")
    sender.send(RECORDS)
    dropped = len(dropped_numbers(sender, 100))
    # A sender in the way of the stop: its stream cannot be committed.
    daemon.data.joinpath("bad").write_text("in the way")
    stuck = daemon.connect()
    stuck.hello(stream="bad")
    stuck.send(b"lost, and not acked\n")
    eventually(lambda: "commit_failed" in daemon.events())
    assert daemon.stop() == 0
    eventually(lambda: "stop_timeout" in daemon.events(), "stop_timeout")
    (told,) = [line for line in daemon.log() if line["event"] == "over_quota"]
    assert (told["stream"], told["records"]) == ("tight", dropped)


def test_a_user_is_over_the_quota_in_all_streams_at_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(USER_QUOTA.format(over="drop"))
    dropped = 0
    for stream in ("one", "two", "three"):
        sender = daemon.connect()
        sender.hello(stream=stream)
        sender.send(RECORDS)
        dropped += len(dropped_numbers(sender, 100))
    assert daemon.stop() == 0
    streams = ("one", "two", "three")
    assert sum(len(values(daemon, stream)) for stream in streams) == 300 - dropped
    told = [report for stream in streams for report in reports(daemon, stream)]
    assert {report["quota"] for report in told} == {"uid"}
    assert sum(report["records"] for report in told) == dropped > 200


def test_send_says_which_lines_were_dropped(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(DROPS)
    done = daemon.cli("send", "-s", "tight", stdin=RECORDS, status=1)
    assert b"over a quota of the daemon; not stored" in done.stderr
    assert b"Traceback" not in done.stderr


def test_bytes_that_block_come_at_their_rate_and_none_is_lost(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("[quota.stream]\nbytes_per_s = '200KiB'\nburst = '100ms'\n")
    lines = b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * 400) for n in range(1, 301))
    done = daemon.cli("send", "-s", "app", stdin=lines)
    assert done.stderr == b""
    assert [value["n"] for value in daemon.values("app")] == list(range(1, 301))
    assert daemon.cli("status").stdout.startswith(b"ok")


# What may be stored in all.


def of_stream(max_bytes: str, over: str = "block") -> str:
    return f"[stream.tight.quota]\nmax_bytes = '{max_bytes}'\nover = '{over}'\n"


def of_user(max_bytes: str, over: str = "block") -> str:
    return f"[uid.{os.geteuid()}.quota]\nmax_bytes = '{max_bytes}'\nover = '{over}'\n"


def random_records(first: int, last: int) -> bytes:
    """Records that no compression makes much smaller."""
    return b"".join(
        b'{"n":%d,"x":"%s"}\n' % (number, os.urandom(120).hex().encode())
        for number in range(first, last + 1)
    )


def files_bytes(daemon: Daemon, stream: str) -> int:
    return sum(path.stat().st_size for path in (daemon.data / stream).glob("[0-9]*"))


def lines_bytes(daemon: Daemon, *streams: str) -> int:
    """What the senders' records take, as they are stored."""
    done = [daemon.cli("cat", stream, "--format", "raw").stdout for stream in streams]
    lines = b"".join(done).splitlines(keepends=True)
    return sum(len(line) for line in lines if b'"n":' in line)


def restart(daemon: Daemon, config: str) -> None:
    daemon.config.write_text(config)
    daemon.start()


def test_a_stream_without_space_blocks_alone_and_a_larger_quota_lets_it_go_on(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(of_stream("8KiB"))
    tight = daemon.connect()
    tight.hello(stream="tight", producer="p")
    sent = random_records(1, 100)
    tight.send(sent)
    waits(daemon)
    free = daemon.connect()
    free.hello(stream="free")
    free.send(RECORDS)
    free.wait_for_ack(100)
    assert b"tight has used up its quota" in daemon.cli("status").stdout
    # One read more than there is room for is taken, and a header is not counted before a look.
    assert 8 * 1024 <= files_bytes(daemon, "tight") < 16 * 1024
    daemon.kill()
    stored = len(values(daemon, "tight"))
    assert 0 < stored < 100
    restart(daemon, of_stream("1MiB"))
    tight = daemon.connect()
    following = tight.hello(stream="tight", producer="p")["next"]
    assert following == stored + 1
    tight.send(b"".join(sent.splitlines(keepends=True)[following - 1 :]))
    tight.wait_for_ack(100)
    assert [value["n"] for value in values(daemon, "tight")] == list(range(1, 101))
    assert b"used up its quota" not in daemon.cli("status").stdout


@pytest.mark.parametrize("quota", [of_stream("32KiB"), of_user("32KiB")], ids=["stream", "user"])
def test_who_has_no_space_goes_on_when_retention_made_some(
    make_daemon: MakeDaemon, quota: str
) -> None:
    daemon = make_daemon(
        "[commit]\nrewrite_limit = '4KiB'\n"
        "[compaction]\nseal_bytes = '4KiB'\nseal_after = '200ms'\nseal_small_after = '200ms'\n"
        f"[stream.tight.retention]\nmax_bytes = '8KiB'\n{quota}"
    )
    sender = daemon.connect()
    sender.hello(stream="tight", producer="p")
    # More than twice what there is room for, in segments of which the oldest may go.
    for last in range(20, 201, 20):
        sender.send(random_records(last - 19, last))
        sender.wait_for_ack(last)
    lines = daemon.cli("cat", "tight", "--format", "raw").stdout.splitlines()
    numbers = [json.loads(line)["n"] for line in lines]
    assert numbers == list(range(numbers[0], 201))
    assert numbers[0] > 1
    daemon.cli("verify")


def test_what_finds_no_space_is_dropped_and_told_of_also_after_a_restart(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(of_stream("8KiB", "drop"))
    tight = daemon.connect()
    tight.hello(stream="tight", producer="p")
    tight.send(RECORDS * 3)
    dropped = dropped_numbers(tight, 300)
    stored = len(values(daemon, "tight"))
    assert stored == 300 - len(dropped)
    assert 6 * 1024 < lines_bytes(daemon, "tight") <= 8 * 1024
    assert daemon.stop() == 0
    (report,) = reports(daemon, "tight")
    assert (report["quota"], report["limit"]) == ("stream", "max_bytes")
    assert report["records"] == len(dropped)

    daemon.start()
    tight = daemon.connect()
    assert tight.hello(stream="tight", producer="p")["next"] == 301
    tight.send(RECORDS)
    assert dropped_numbers(tight, 400) == set(range(301, 401))
    assert daemon.stop() == 0
    assert len(values(daemon, "tight")) == stored
    assert sum(each["records"] for each in reports(daemon, "tight")) == 400 - stored


def test_a_user_has_one_space_in_all_streams_and_over_a_kill(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(of_user("16KiB", "drop"))
    dropped = 0
    for stream in ("one", "two"):
        sender = daemon.connect()
        sender.hello(stream=stream, producer="p")
        sender.send(RECORDS)
        dropped += len(dropped_numbers(sender, 100))
    stored = lines_bytes(daemon, "one", "two")
    assert 16 * 1024 - 200 < stored <= 16 * 1024
    assert sum(len(values(daemon, stream)) for stream in ("one", "two")) == 200 - dropped
    daemon.kill()

    daemon.start()
    for stream in ("two", "three"):
        sender = daemon.connect()
        sender.hello(stream=stream)
        sender.send(RECORDS)
        assert len(dropped_numbers(sender, 100)) >= 99
    daemon.kill()
    assert lines_bytes(daemon, "one", "two") <= 16 * 1024

    restart(daemon, of_user("1MiB", "drop"))
    sender = daemon.connect()
    sender.hello(stream="three")
    sender.send(RECORDS)
    assert dropped_numbers(sender, 100) == set()


def test_a_user_without_space_waits_on_all_connections_and_over_a_kill(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(of_user("8KiB"))
    sent = random_records(1, 100)
    for stream in ("one", "two"):
        sender = daemon.connect()
        sender.hello(stream=stream, producer="p")
        sender.send(sent)
    eventually(lambda: b"2 of them waiting" in daemon.cli("status").stdout, "both to be held")
    assert f"user {os.geteuid()} has used up the quota".encode() in daemon.cli("status").stdout
    daemon.kill()
    daemon.start()
    senders = {stream: daemon.connect() for stream in ("one", "two")}
    following = {s: each.hello(stream=s, producer="p")["next"] for s, each in senders.items()}
    for stream, sender in senders.items():
        sender.send(b"".join(sent.splitlines(keepends=True)[following[stream] - 1 :]))
    eventually(lambda: b"2 of them waiting" in daemon.cli("status").stdout, "both to be held")
    # A stop takes what was sent, whatever the quota.
    assert daemon.stop() == 0
    for stream in senders:
        assert [value["n"] for value in values(daemon, stream)] == list(range(1, 101))


def headers(daemon: Daemon, stream: str) -> list[tuple[dict[str, Any], bytes]]:
    """Headers and bodies as they count, in order."""
    found: list[tuple[dict[str, Any], bytes]] = []
    for path in sorted((daemon.data / stream).glob("[0-9]*")):
        line, _, body = decompressed(path, path.read_bytes()).partition(b"\n")
        header = json.loads(line)
        if found and header["first"] == found[-1][0]["first"]:
            found.pop()  # there compressed too
        last = header["first"] + header["count"] - 1
        if not found or last >= found[-1][0]["first"] + found[-1][0]["count"]:
            found.append((header, body))
    return found


def test_headers_count_users_to_the_byte_whatever_is_killed_merged_and_erased(
    make_daemon: MakeDaemon,
) -> None:
    config = (
        "[commit]\nrewrite_limit = '2KiB'\n"
        "[compaction]\nseal_bytes = '16KiB'\nfanout = 4\nseal_after = '100ms'\n"
        f"seal_small_after = '1h'\n{of_user('1GiB')}"
    )
    daemon = make_daemon(config)
    uid, total = str(os.geteuid()), 1200
    lines = random_records(1, total).splitlines(keepends=True)
    sent = 0
    while sent < total:
        sender = daemon.connect()
        sent = sender.hello(stream="app", producer="p")["next"] - 1
        for line in lines[sent:]:
            sender.send(line)
            sent += 1
            if sent % 250 == 0:
                break
        sender.wait_for_ack(sent - 20)
        daemon.kill()
        daemon.start()
    eventually(lambda: len(list((daemon.data / "app").glob("*.zst"))) > 2, "seals")
    assert daemon.stop() == 0
    counted = 0
    found = headers(daemon, "app")
    for header, body in found:
        assert header["users"] == {uid: [counted, len(body)]}
        counted += len(body)
    stored = len([value for value in values(daemon, "app") if "n" in value])
    assert stored >= total - 20

    daemon.cli("erase", "app", "--where", "n=7")
    erased = headers(daemon, "app")
    assert [header["users"] for header, _ in erased] == [header["users"] for header, _ in found]
    assert sum(len(body) for _, body in erased) < counted
