"""The protocol `syslog` with a real daemon and real clients, in datagrams and over streams."""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

import pytest

from logengine.protocols.status import DATAGRAM_QUEUE_MIN
from tests.daemon import ENVELOPE, PATIENCE_S, Daemon, eventually
from tests.namespaces import run_with

LISTEN = """
[[listen]]
path = "{root}/log"
protocol = "syslog"
type = "datagram"
stream = "syslog"

[[listen]]
path = "{root}/log-stream"
protocol = "syslog"
stream = "syslog"
"""
LOGGER = shutil.which("logger")
NOTICE = {"level": "notice", "facility": "user"}

needs_logger = pytest.mark.skipif(LOGGER is None, reason="logger(1) of util-linux is not installed")


class Receiver:
    """A daemon that takes syslog, and the ways to send it."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.root = root
        self.daemon = Daemon(root, config + LISTEN.format(root=root))
        self.datagrams_path = root / "log"
        self.stream_path = root / "log-stream"

    def stream(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.stream_path))
        return connection

    def datagrams(self) -> socket.socket:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.settimeout(PATIENCE_S)
        sender.connect(str(self.datagrams_path))
        return sender

    def log(self, *arguments: str) -> int:
        """Runs logger(1). Returns its process id."""
        assert LOGGER is not None
        with subprocess.Popen([LOGGER, "--socket-errors=on", *arguments]) as process:
            assert process.wait(PATIENCE_S) == 0
        return process.pid

    def records(self, count: int) -> list[dict[str, Any]]:
        """The records on disk, when there are so many."""

        def stored() -> list[dict[str, Any]]:
            return self.daemon.records("syslog")

        eventually(lambda: len(stored()) >= count, f"{count} records")
        assert len(stored()) == count
        return stored()

    def messages(self) -> list[str]:
        return [value["message"] for value in self.daemon.values("syslog") if "message" in value]

    def has(self, *messages: str) -> None:
        """Returns when these are on disk, and nothing else."""
        expected = list(messages)
        eventually(lambda: self.messages() == expected, f"{expected}, and not {self.messages()}")


def value_of(record: dict[str, Any]) -> dict[str, Any]:
    """The sender's own part of a record, without the time."""
    return {key: record[key] for key in record if key not in (*ENVELOPE, "time")}


@needs_logger
def test_logger_is_understood_over_either_transport(receiver: Receiver) -> None:
    structured = ["--rfc5424", "--msgid", "MID", "--sd-id", "ex@32473", "--sd-param", 'k="v\\]w"']
    expected = 0
    for to in (
        ["-d", "-u", str(receiver.datagrams_path)],
        ["-u", str(receiver.datagrams_path)],
        ["-u", str(receiver.stream_path)],
        ["-u", str(receiver.stream_path), "--octet-count"],
    ):
        pid = receiver.log(*to, "-t", "tag1", "-p", "local3.warning", "plain msg")
        receiver.log(*to, "-t", "tag2", "--id=77", "--rfc3164", "with a host")
        receiver.log(*to, "-t", "tag3", *structured, "rfc5424 msg")
        receiver.log(*to, "-t", "tag4", "--rfc5424=notime,notq,nohost", "bare")
        expected += 4
        plain, relayed, strict, bare = receiver.records(expected)[-4:]
        assert value_of(plain) == {
            "level": "warning",
            "facility": "local3",
            "app": "tag1",
            "message": "plain msg",
        }
        assert plain["_pid"] == pid
        assert plain["time"][:16] <= plain["_ts"][:16]
        host = socket.gethostname().split(".")[0]
        assert value_of(relayed) == NOTICE | {
            "host": host,
            "app": "tag2",
            "procid": "77",
            "message": "with a host",
        }
        assert strict["structured"]["ex@32473"] == {"k": "v]w"}
        assert (strict["app"], strict["msgid"], strict["message"]) == ("tag3", "MID", "rfc5424 msg")
        assert abs(float(strict["time"][17:26]) - float(strict["_ts"][17:26])) % 60 < PATIENCE_S
        assert value_of(bare) == NOTICE | {"app": "tag4", "message": "bare"}
        assert "time" not in bare


@needs_logger
def test_a_message_with_lf_is_one_record_unless_lf_ends_it(receiver: Receiver) -> None:
    receiver.log("-d", "-u", str(receiver.datagrams_path), "-t", "a", "one\ntwo")
    receiver.has("one\ntwo")
    receiver.log("-u", str(receiver.stream_path), "--octet-count", "-t", "b", "one\ntwo")
    receiver.has("one\ntwo", "one\ntwo")
    receiver.log("-u", str(receiver.stream_path), "-t", "c", "one\ntwo")
    receiver.has("one\ntwo", "one\ntwo", "one", "two")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_traceback_of_pythons_handler_is_one_record(
    receiver: Receiver, kind: socket.SocketKind
) -> None:
    path = receiver.datagrams_path if kind is socket.SOCK_DGRAM else receiver.stream_path
    handler = SysLogHandler(str(path), SysLogHandler.LOG_LOCAL1, kind)
    logger = logging.getLogger("syslog-of-this-test")
    logger.propagate = False
    logger.addHandler(handler)
    with contextlib.closing(handler), contextlib.ExitStack() as stack:
        stack.callback(logger.removeHandler, handler)
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("first")
        handler.ident = "app: "
        logger.warning("sécond %s", "ß")
        logger.critical('{"event":"third","n":[1]}')
        first, second, third = receiver.records(3)
    assert first["message"].startswith("first\nTraceback (most recent call last):\n")
    assert first["message"].endswith("\nValueError: no")
    assert first["level"] == "error"
    assert value_of(second) == {
        "level": "warning",
        "facility": "local1",
        "app": "app",
        "message": "sécond ß",
    }
    assert value_of(third) == {
        "level": "critical",
        "facility": "local1",
        "app": "app",
        "event": "third",
        "n": [1],
    }
    assert {record["_pid"] for record in (first, second, third)} == {os.getpid()}


SYSLOG_3 = """
import syslog
syslog.openlog("capp", syslog.LOG_PID, syslog.LOG_LOCAL2)
syslog.syslog(syslog.LOG_WARNING, "hello\\nsecond")
syslog.syslog(syslog.LOG_ERR, "last")
"""


@pytest.mark.parametrize("transport", ["datagram", "stream"])
def test_syslog_of_the_c_library_is_understood_at_dev_log(
    receiver: Receiver, transport: str
) -> None:
    path = receiver.datagrams_path if transport == "datagram" else receiver.stream_path
    pid, _ = run_with(path, "/dev/log", sys.executable, "-c", SYSLOG_3)
    first, last = receiver.records(2)
    told = {"facility": "local2", "app": "capp", "procid": str(pid)}
    assert value_of(first) == told | {"level": "warning", "message": "hello\nsecond"}
    assert value_of(last) == told | {"level": "error", "message": "last"}
    assert first["_pid"] == last["_pid"] == pid
    assert first["time"][:13] <= first["_ts"][:13]


# Docker's driver cannot be run here: what it was seen to send.
def test_what_other_clients_send_is_understood_message_by_message(receiver: Receiver) -> None:
    with receiver.datagrams() as datagrams:
        datagrams.send(b"<30> 2026-11-23T20:45:16Z vm srtag[3391]: of Docker")
        datagrams.send(b'<190>Nov 23 20:45:09 js: {"uri":"/f","_pid":1}')
        docker, nginx = receiver.records(2)
    assert docker["time"] == "2026-11-23T20:45:16.000000Z"
    assert value_of(docker) == {
        "level": "info",
        "facility": "daemon",
        "host": "vm",
        "app": "srtag",
        "procid": "3391",
        "message": "of Docker",
    }
    assert docker["_pid"] == os.getpid()
    assert (nginx["uri"], nginx["__pid"], nginx["app"]) == ("/f", 1, "js")


def test_a_connection_may_mix_all_ways_to_end_a_message(receiver: Receiver) -> None:
    with receiver.stream() as sender:
        sender.sendall(b"<13>lf\n9 <13>co")
        receiver.has("lf")
        sender.sendall(b"unt<13>nul\0<13>nul\nand lf\0")
        receiver.has("lf", "count", "nul", "nul\nand lf")
        sender.sendall(b"12 <13>with nul\0<13>the end")
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""  # nothing is answered
    assert receiver.messages()[-2:] == ["with nul", "the end"]


BROKEN = {
    b"": None,
    b"\0": None,
    b"\xff\xfe\xfd": {"message": "\\xff\\xfe\\xfd"},
    b"<": {"message": "<"},
    b"<13>" + b"\x1b[2J\x07": NOTICE | {"message": "\x1b[2J\x07"},
    b"<99999999999999>x": {"message": "<99999999999999>x"},
    b"<13>1 - - a - - [" + b'x y="' * 1000: NOTICE | {"message": "1 - - a - - [" + 'x y="' * 1000},
    b"<13>" + b'{"a":' * 1000: NOTICE | {"message": '{"a":' * 1000},
    b"<13>" + b"[" * 1000: NOTICE | {"message": "[" * 1000},
    b"999999999 <13>short": NOTICE | {"message": "short"},
    b"<13>Feb 31 99:99:99 a: b": NOTICE | {"message": "Feb 31 99:99:99 a: b"},
    b"<13>1 9999-12-31T23:59:59-23:59 - a - - - b": NOTICE
    | {"message": "1 9999-12-31T23:59:59-23:59 - a - - - b"},
    b'<13>{"a":1,"a":2}': NOTICE | {"a": 2},
    b'<13>{"a":' + b"9" * 5000 + b"}": NOTICE | {"message": '{"a":' + "9" * 5000 + "}"},
}


def test_nothing_that_is_broken_ends_the_daemon_or_is_lost(receiver: Receiver) -> None:
    expected = [value for value in BROKEN.values() if value is not None]
    with receiver.datagrams() as datagrams:
        for data in BROKEN:
            datagrams.send(data)
        of_datagrams = receiver.records(len(expected))
    for data in BROKEN:
        with receiver.stream() as sender:
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(1) == b""
    of_streams = receiver.records(2 * len(expected))[len(expected) :]
    assert [value_of(record) for record in of_datagrams] == expected
    assert [value_of(record) for record in of_streams] == expected
    assert not {"connection_failed", "datagram_failed"} & set(receiver.daemon.events())


def test_a_message_longer_than_a_record_comes_in_pieces(
    make_receiver: Callable[[str], Receiver],
) -> None:
    receiver = make_receiver('[limits]\nmax_record = "100B"')
    text = "0123456789" * 25
    with receiver.stream() as stream, receiver.datagrams() as datagrams:
        stream.sendall(f"258 <13>a: {text}x<13>short\n".encode())
        receiver.has(text[:93], text[93:193], text[193:] + "x", "short")
        datagrams.send(f"<13>a: {text}".encode())
        receiver.has(
            *(text[:93], text[93:193], text[193:] + "x", "short"),
            *(text[:93], text[93:193], text[193:]),
        )
    values = receiver.daemon.values("syslog")
    assert [value.get("partial") for value in values] == [
        *(True, True, None, None),
        *(True, True, None),
    ]
    assert [value.get("app") for value in values] == [*"aaa", None, *"aaa"]


def test_a_quota_counts_messages_whatever_ends_them(
    make_receiver: Callable[[str], Receiver],
) -> None:
    receiver = make_receiver(
        f'[uid.{os.getuid()}.quota]\nrecords_per_s = 1\nburst = "6s"\nover = "drop"\n'
    )
    with receiver.stream() as stream:
        stream.sendall(b"\0" * 5000 + b"<13>1\0<13>2\n\0" + b"7 <13>3\n4" * 10)
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == b""
    assert len(receiver.messages()) >= 6
    status = json.loads(receiver.daemon.cli("status", "--json").stdout)
    assert status["totals"]["over_quota_records"] == 12 - len(receiver.messages())


def test_a_quota_that_blocks_loses_no_message(make_receiver: Callable[[str], Receiver]) -> None:
    receiver = make_receiver('[stream.syslog.quota]\nrecords_per_s = 50\nburst = "100ms"\n')
    with receiver.stream() as stream:
        stream.sendall(b"".join(b"%d <13>%d\n+" % (7 + (n > 9), n) for n in range(30)))
        stream.sendall(b"<13>half")
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == b""
    receiver.has(*(f"{number}\n+" for number in range(30)), "half")


def test_a_stop_takes_what_was_sent_and_half_a_message_too(receiver: Receiver) -> None:
    with receiver.stream() as stream, receiver.datagrams() as datagrams:
        for number in range(50):
            datagrams.send(b"<13>datagram %d" % number)
        stream.sendall(b"<13>whole\n100 <13>half a\nmess")
        assert receiver.daemon.stop() == 0
    messages = receiver.messages()
    assert [m for m in messages if m.startswith("datagram")] == [f"datagram {n}" for n in range(50)]
    assert [m for m in messages if not m.startswith("datagram")] == ["whole", "half a\nmess"]


def test_the_status_warns_of_a_short_queue_of_datagrams(receiver: Receiver) -> None:
    length = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1
    status = json.loads(receiver.daemon.cli("status", "--json").stdout)
    assert status["datagram_queue"] == length
    said = receiver.daemon.cli("status").stdout.decode()
    assert (f"only {length} datagrams wait" in said) == (length < DATAGRAM_QUEUE_MIN)
    # So many are accepted while the daemon cannot read, and no more.
    process = receiver.daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2][1] == "T")
    try:
        with contextlib.ExitStack() as stack, pytest.raises(BlockingIOError):
            for number in range(length + 1):
                # One sender alone may have filled its own buffer before.
                sender = stack.enter_context(receiver.datagrams())
                sender.setblocking(False)
                sender.send(b"<13>%d" % number)
    finally:
        process.send_signal(signal.SIGCONT)
    receiver.has(*(str(number) for number in range(length)))
