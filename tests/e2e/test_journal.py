"""The protocols `journal` and `journal-stdout` with a real daemon, real clients, and enemies."""

import array
import contextlib
import ctypes.util
import fcntl
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from logging_journald import JournaldLogHandler  # type: ignore[import-untyped]

from tests.daemon import ENVELOPE, PATIENCE_S, PROGRAM, Daemon, eventually
from tests.namespaces import run_with

LISTEN = """
[[listen]]
path = "{root}/journal/socket"
protocol = "journal"
type = "datagram"
stream = "journal"

[[listen]]
path = "{root}/journal/stdout"
protocol = "journal-stdout"
stream = "output"
"""
ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MIB = 1024 * 1024


class Receiver:
    """A daemon with the sockets of journald, and the ways to send to them."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.directory = root / "journal"
        self.daemon = Daemon(root, config + LISTEN.format(root=root))
        self.datagrams_path = self.directory / "socket"
        self.stdout_path = self.directory / "stdout"

    def datagrams(self) -> socket.socket:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.settimeout(PATIENCE_S)
        sender.connect(str(self.datagrams_path))
        return sender

    def stdout(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.stdout_path))
        return connection

    def records(self, count: int, stream: str = "journal") -> list[dict[str, Any]]:
        """The records on disk, when there are so many."""

        def stored() -> list[dict[str, Any]]:
            return self.daemon.records(stream)

        eventually(lambda: len(stored()) >= count, f"{count} records")
        assert len(stored()) == count
        return stored()

    def in_namespace(self, *command: str, stdin: str = "") -> int:
        """Runs a command that finds the daemon's sockets at journald's paths. Returns its pid.

        Skips the test if that is not possible here.
        """
        pid, _ = run_with(self.directory, "/run/systemd/journal", *command, stdin=stdin)
        return pid


def value_of(record: dict[str, Any]) -> dict[str, Any]:
    """The sender's own part of a record."""
    return {key: record[key] for key in record if key not in ENVELOPE}


def memory_file(content: bytes, seals: int = ALL_SEALS) -> int:
    descriptor = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def pass_along(sender: socket.socket, *descriptors: int, payload: bytes = b"") -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    sender.sendmsg([payload], [rights])
    for descriptor in descriptors:
        os.close(descriptor)


@contextlib.contextmanager
def logger_to(receiver: Receiver) -> Iterator[logging.Logger]:
    handler = JournaldLogHandler("app", socket_path=receiver.datagrams_path)
    logger = logging.getLogger("journal-of-this-test")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.transport.socket.close()


def test_the_handler_of_logging_journald_is_understood_small_and_large(receiver: Receiver) -> None:
    # The entry has it twice, also as MESSAGE_RAW: 600 KB, more than a socket's buffer. So it comes
    # as a memory file.
    large = "é" * 150_000
    with logger_to(receiver) as logger:
        logger.warning("small %s", "ß", extra={"user-id": 7})
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("two\nlines")
        logger.error(large)
        small, traceback, big = receiver.records(3)
    assert (small["message"], small["level"], small["app"]) == ("small ß", "warning", "app")
    assert small["facility"] == "local7"
    assert small["EXTRA_USER-ID"] == "7"
    assert small["LOGGER_NAME"] == "journal-of-this-test"
    assert traceback["message"].startswith("two\nlines\nTraceback (most recent call last):\n")
    assert "ValueError: no" in traceback["TRACEBACK"]
    assert (big["message"], big["level"]) == (large, "error")
    assert {record["_pid"] for record in (small, traceback, big)} == {os.getpid()}


def test_the_handler_of_logging_journald_finds_the_daemon_again(receiver: Receiver) -> None:
    with logger_to(receiver) as logger:
        logger.error("before")
        receiver.records(1)
        receiver.daemon.kill()
        receiver.daemon.start()
        logger.error("after")
        assert [record["message"] for record in receiver.records(2)] == ["before", "after"]


def test_logger_with_journald_is_understood(receiver: Receiver) -> None:
    if shutil.which("logger") is None:
        pytest.skip("logger(1) of util-linux is not installed")
    entry = "MESSAGE=from logger journald\nPRIORITY=5\nMY_FIELD=x\nSYSLOG_IDENTIFIER=logger\n"
    pid = receiver.in_namespace("logger", "--journald", stdin=entry)
    (record,) = receiver.records(1)
    assert value_of(record) == {
        "level": "notice",
        "app": "logger",
        "message": "from logger journald",
        "MY_FIELD": "x",
    }
    assert record["_pid"] == pid


# sd_journal_sendv(3), as all bindings of libsystemd call it.
SEND_BY_LIBSYSTEMD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
def send(*fields):
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]
    parts = (Part * len(fields))(*(Part(field, len(field)) for field in fields))
    result = library.sd_journal_sendv(parts, len(fields))
    assert result == 0, result
send(b"MESSAGE=two\\nlines", b"PRIORITY=3", b"X=1", b"X=2", b"BLOB=\\xff\\0\\n")
send(b"MESSAGE=" + b"y" * 300_000)
send(b"MESSAGE=" + b"z" * 9_000_000)
library.sd_journal_print(4, b"%s", b"printed")
"""


def test_libsystemd_is_understood_small_and_large(
    make_receiver: Callable[[str], Receiver],
) -> None:
    library = ctypes.util.find_library("systemd")
    if library is None:
        pytest.skip("libsystemd is not installed")
    receiver = make_receiver('[limits]\nmax_record = "10MiB"\nmax_pending = "64MiB"\n')
    pid = receiver.in_namespace(sys.executable, "-c", SEND_BY_LIBSYSTEMD, library)
    first, datagram, file, printed = receiver.records(4)
    told = {name: first[name] for name in ("message", "level", "X", "BLOB_base64")}
    assert told == {
        "message": "two\nlines",
        "level": "error",
        "X": ["1", "2"],
        "BLOB_base64": "/wAK",
    }
    assert datagram["message"] == "y" * 300_000
    assert file["message"] == "z" * 9_000_000
    assert (printed["message"], printed["level"]) == ("printed", "warning")
    assert {record["_pid"] for record in (first, datagram, file, printed)} == {pid}


def test_systemd_cat_is_understood(receiver: Receiver) -> None:
    if shutil.which("systemd-cat") is None:
        pytest.skip("systemd-cat(1) is not installed")
    script = "echo plain; echo '<3>bad'; echo to stderr >&2; printf 'no end'"
    pid = receiver.in_namespace("systemd-cat", "-t", "mycat", "-p", "warning", "sh", "-c", script)
    records = receiver.records(4, "output")
    assert [value_of(record) for record in records] == [
        {"level": "warning", "app": "mycat", "message": "plain"},
        {"level": "error", "app": "mycat", "message": "bad"},
        {"level": "warning", "app": "mycat", "message": "to stderr"},
        {"level": "warning", "app": "mycat", "message": "no end"},
    ]
    assert {record["_pid"] for record in records} == {pid}
    receiver.in_namespace(
        "systemd-cat", "--level-prefix=false", "sh", "-c", "echo '<3>as it is'; true"
    )
    assert receiver.records(5, "output")[-1]["message"] == "<3>as it is"


HEADER = b"app\n\n6\n1\n0\n0\n0\n"


def test_a_stream_may_come_in_any_pieces_and_is_not_answered(receiver: Receiver) -> None:
    with receiver.stdout() as sender:
        for byte in HEADER + b"one\n<2>two\n":
            sender.send(bytes([byte]))
        receiver.records(2, "output")
        sender.sendall(b"\0" * 10 + b"three\0<9>four")
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""
    messages = [record["message"] for record in receiver.records(4, "output")]
    assert messages == ["one", "two", "three", "<9>four"]


def test_a_header_that_is_none_closes_the_connection_and_is_logged(receiver: Receiver) -> None:
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * MIB, b"a\nb\n6\n"):
        # Closed with unread data, it is reset.
        with (
            receiver.stdout() as sender,
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
        ):
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(1) == b""
    assert len(receiver.daemon.logged("malformed_input", 3)) == 3
    with receiver.stdout() as sender:
        sender.sendall(HEADER + b"still there\n")
        receiver.records(1, "output")


def test_a_quota_counts_lines_and_not_the_header(make_receiver: Callable[[str], Receiver]) -> None:
    receiver = make_receiver('[stream.output.quota]\nrecords_per_s = 50\nburst = "100ms"\n')
    with receiver.stdout() as sender:
        sender.sendall(HEADER + b"".join(b"%d\n" % number for number in range(30)))
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""
    messages = [record["message"] for record in receiver.records(30, "output")]
    assert messages == [str(number) for number in range(30)]


def test_a_stop_takes_what_was_sent(receiver: Receiver) -> None:
    with receiver.stdout() as stdout, receiver.datagrams() as datagrams:
        for number in range(20):
            datagrams.send(b"MESSAGE=datagram %d\n" % number)
            pass_along(datagrams, memory_file(b"MESSAGE=file %d\n" % number))
        stdout.sendall(HEADER + b"whole\nhalf")
        assert receiver.daemon.stop() == 0
    messages = [record["message"] for record in receiver.daemon.records("journal")]
    assert messages == [f"{kind} {n}" for n in range(20) for kind in ("datagram", "file")]
    messages = [record["message"] for record in receiver.daemon.records("output")]
    assert messages == ["whole", "half"]


def test_a_forged_field_stays_apart_and_the_kernel_says_who_sent_it(receiver: Receiver) -> None:
    with receiver.datagrams() as sender:
        sender.send(b"MESSAGE=a\n_PID=1\n_UID=0\n_SYSTEMD_UNIT=sshd.service\n_pid=1\n_ts=never\n")
        (record,) = receiver.records(1)
        assert value_of(record) == {
            "message": "a",
            "untrusted": {
                "_PID": "1",
                "_UID": "0",
                "_SYSTEMD_UNIT": "sshd.service",
                "_pid": "1",
                "_ts": "never",
            },
        }
        assert (record["_pid"], record["_uid"]) == (os.getpid(), os.getuid())


# Forges its credentials as user 1234, by a datagram with a payload and by a memory file.
FORGE = """
import array, fcntl, os, socket, struct, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
os.setgroups([]); os.setresgid(1234, 1234, 1234); os.setresuid(1234, 1234, 1234)
forged = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", 1, 0, 0))
try:
    sender.sendmsg([b"MESSAGE=forged\\n"], [forged])
except PermissionError:
    sender.send(b"MESSAGE=honest\\n")
file = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
os.write(file, b"MESSAGE=of a file\\n_UID=0\\n")
fcntl.fcntl(file, fcntl.F_ADD_SEALS, 15)
sender.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
"""


def test_only_root_can_forge_credentials(receiver: Receiver) -> None:
    if os.getuid():
        pytest.skip("only root may become another user")
    subprocess.run([sys.executable, "-c", FORGE, str(receiver.datagrams_path)], check=True)
    honest, of_file = receiver.records(2)
    assert (honest["message"], honest["_uid"]) == ("honest", 1234)
    assert (of_file["message"], of_file["_uid"]) == ("of a file", 1234)
    with receiver.datagrams() as sender:
        credentials = struct.pack("3i", os.getppid(), 77, 88)
        forged = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)
        sender.sendmsg([b"MESSAGE=of root\n"], [forged])
    assert (receiver.records(3)[-1]["_pid"], receiver.records(3)[-1]["_uid"]) == (os.getppid(), 77)


def test_enemies_are_refused_counted_and_end_nothing(receiver: Receiver) -> None:
    datagrams = receiver.datagrams()
    with datagrams:
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * MIB)
        datagrams.send(b"MESSAGE=" + b"a" * 300_000 + b"\n")  # one datagram of 300 KB
        receiver.records(1)
        pass_along(datagrams, memory_file(b"MESSAGE=" + b"b" * 8 * MIB + b"\n"))
        pass_along(datagrams, memory_file(b"MESSAGE=c\n", 0))
        reading, writing = os.pipe()
        os.close(writing)
        pass_along(datagrams, reading)
        pass_along(datagrams, *(memory_file(b"MESSAGE=d\n") for _ in range(253)))
        refused = 4
        with contextlib.suppress(OSError):  # the kernel may not allow it
            datagrams.send(b"MESSAGE=" + b"e" * 8 * MIB + b"\n")
            refused += 1
        datagrams.send(b"X\n" * 100_000)
        datagrams.send(b"A\n" + b"\xff" * 8 + b"x")
        datagrams.send(b"".join(b"F%d=\n" % number for number in range(20_000)))
        for _ in range(500):
            pass_along(datagrams, memory_file(b"MESSAGE=flood\n"), memory_file(b""))
            refused += 1
        datagrams.send(b"MESSAGE=the last\n")
        *_, last = receiver.records(5)
    assert last["message"] == "the last"
    status = json.loads(receiver.daemon.cli("status", "--json").stdout)
    assert status["totals"]["refused_records"] == refused
    process = receiver.daemon.process
    assert process is not None
    eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) < 100)
    assert receiver.daemon.stop() == 0
    events = receiver.daemon.events()
    assert not {"datagram_failed", "receive_failed", "connection_failed"} & set(events)
    assert "memory_file_refused" in events
    assert "record_too_large" in events
    # The daemon's log is limited, whatever the number of refusals.
    assert events.count("memory_file_refused") < 100


RUN_WITH_DESCRIPTORS = (
    "import os, sys; number = len(sys.argv[3:]);"
    "[os.dup2(int(each), 3 + n) for n, each in enumerate(sys.argv[3:])];"
    "[os.set_inheritable(3 + n, True) for n in range(number)];"
    "os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = str(number);"
    f"os.execv(sys.executable, [sys.executable, *{PROGRAM!r}, 'run',"
    " '--data', sys.argv[1], '--config', sys.argv[2]])"
)


def test_over_a_kill_sockets_of_systemd_lose_no_entry_that_waits_there(root: Path) -> None:
    daemon = Daemon(root, f'[[listen]]\npath = "{root}/socket"\n' + LISTEN.format(root=root))
    (root / "journal").mkdir()
    with contextlib.ExitStack() as stack:
        kinds = {
            root / "journal" / "socket": socket.SOCK_DGRAM,
            root / "journal" / "stdout": socket.SOCK_STREAM,
            root / "socket": socket.SOCK_STREAM,
        }
        held: list[socket.socket] = []
        for path, kind in kinds.items():
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            # As PassCredentials=, PassSecurity= and Timestamping= of systemd-journald.socket.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if kind is socket.SOCK_DGRAM:
                listener.setsockopt(socket.SOL_SOCKET, 34, 1)
            listener.bind(str(path))
            if kind is socket.SOCK_STREAM:
                listener.listen()
            # dup2(2) to a number that another one has would close that one.
            high = fcntl.fcntl(listener, fcntl.F_DUPFD, 100)
            held.append(stack.enter_context(socket.socket(fileno=high)))
        sender = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        sender.settimeout(PATIENCE_S)
        sender.connect(str(root / "journal" / "socket"))
        expected: list[str] = []
        for turn in range(3):
            for carrier in ("datagram", "file"):
                expected.append(f"{carrier} {turn}")
                entry = f"MESSAGE={carrier} {turn}\n".encode()
                if carrier == "file":
                    pass_along(sender, memory_file(entry))
                else:
                    sender.send(entry)
            stdout = stack.enter_context(socket.socket(socket.AF_UNIX))
            stdout.connect(str(root / "journal" / "stdout"))
            stdout.sendall(HEADER + b"line %d\n" % turn)
            process = stack.enter_context(
                subprocess.Popen(
                    [
                        *(sys.executable, "-c", RUN_WITH_DESCRIPTORS),
                        *(str(daemon.data), str(daemon.config)),
                        *(str(each.fileno()) for each in held),
                    ],
                    pass_fds=[each.fileno() for each in held],
                )
            )
            try:
                eventually(lambda: len(daemon.records("journal")) == len(expected))
                eventually(lambda turn=turn: len(daemon.records("output")) == turn + 1)  # type: ignore[misc]
            finally:
                process.kill()
        assert [record["message"] for record in daemon.records("journal")] == expected
        assert [record["message"] for record in daemon.records("output")] == [
            *("line 0", "line 1", "line 2")
        ]
        assert {record["_pid"] for record in daemon.records("journal")} == {os.getpid()}
