"""Routing by fields with a real daemon and real clients."""

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_forward import Persistent, acknowledged, chunk
from tests.e2e.test_journal import ALL_SEALS
from tests.e2e.test_syslog import LOGGER, needs_logger
from tests.users import acting_as

CONFIG = """
[limits]
max_streams = {max_streams}

[[listen]]
path = "{root}/log"
protocol = "syslog"
type = "datagram"
stream = "{{app}}"
fallback = "syslog"

[[listen]]
path = "{root}/log-stream"
protocol = "syslog"
stream = "{{app}}"
fallback = "syslog"

[[listen]]
path = "{root}/forward"
protocol = "forward"
stream = "{{tag}}"

[[listen]]
path = "{root}/lines"
protocol = "lines"
stream = "of-{{comm}}-{{uid}}"

[[route]]
where = "facility in (auth, authpriv)"
stream = "auth"

[[route]]
where = "level >= error"
stream = "errors"
path = "{root}/log-stream"
"""


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Daemon]]:
    with contextlib.ExitStack() as stack:

        def started(max_streams: int = 4096) -> Daemon:
            daemon = Daemon(root, CONFIG.format(root=root, max_streams=max_streams))
            stack.callback(daemon.close)
            return daemon.start()

        yield started


def has(daemon: Daemon, **messages: list[str]) -> None:
    """Returns once these streams have these messages."""

    def found() -> dict[str, list[str]]:
        return {
            name: [record["message"] for record in daemon.records(name.replace("_", "-"))]
            for name in messages
        }

    eventually(lambda: found() == messages, f"{messages}, and not {found()}")


@needs_logger
def test_loggers_messages_go_to_the_stream_of_their_tag(
    start: Callable[..., Daemon], root: Path
) -> None:
    daemon = start()

    def log(*arguments: str) -> None:
        assert LOGGER is not None
        assert os.spawnv(os.P_WAIT, LOGGER, [LOGGER, "--socket-errors=on", *arguments]) == 0

    log("-d", "-u", str(root / "log"), "-t", "Backup", "one")
    log("-u", str(root / "log-stream"), "--octet-count", "-t", "backup", "two")
    log("-u", str(root / "log-stream"), "--rfc5424", "-t", "../web", "-p", "user.err", "three")
    log("-u", str(root / "log"), "-t", "sshd", "-p", "auth.info", "four")
    log("-u", str(root / "log"), "-t", "x" * 40, "--", "five")
    log("-u", str(root / "log"), "-t", "...", "six")
    has(
        daemon,
        backup=["one", "two"],
        errors=["three"],
        auth=["four"],
        syslog=["six"],
        **{"x" * 40: ["five"]},
    )
    eventually(lambda: "stream_of_several_names" in daemon.events(), "stream_of_several_names")
    daemon.cli("verify")


def test_pythons_handler_logs_to_the_stream_of_its_ident(
    start: Callable[..., Daemon], root: Path
) -> None:
    daemon = start()
    for path, kind in (("log", socket.SOCK_DGRAM), ("log-stream", socket.SOCK_STREAM)):
        handler = SysLogHandler(str(root / path), SysLogHandler.LOG_USER, kind)
        handler.ident = "my/app: "
        with contextlib.closing(handler):
            handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, "hello", None, None))
    has(daemon, my_app=["hello", "hello"])


def test_lines_go_to_a_stream_of_the_process_that_sends_them(
    start: Callable[..., Daemon], root: Path
) -> None:
    daemon = start()
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(root / "lines"))
        sender.sendall(b"a\nb\n")
    name = Path("/proc/self/comm").read_text().strip().lower()
    expected = f"of-{name}-{os.getuid()}"
    eventually(lambda: [each["message"] for each in daemon.records(expected)] == ["a", "b"])


def test_chunks_of_many_tags_are_stored_once_however_often_the_daemon_is_killed(
    start: Callable[..., Daemon], root: Path
) -> None:
    # There is no room for all of their streams, and after a kill there is for others than before.
    daemon = start(max_streams=12)
    senders = [Persistent(root, name, 300) for name in "abcd"]
    for each in senders:
        each.sent = {
            name: chunk(name, f"{name}a", f"{name}b", tag=f"Tag/{number % 20}")
            for number, name in enumerate(each.sent)
        }
        each.unacknowledged = dict(each.sent)
        each.start()
    try:
        for kill in range(1, 7):
            eventually(lambda: acknowledged(senders) >= kill * 120)  # noqa: B023 - called here
            daemon.kill()
            daemon.start()
        for each in senders:
            each.join(60)
            assert not each.unacknowledged
    finally:
        for each in senders:
            each.gives_up = True
            each.join(60)
    wanted = Counter(f"{name}{part}" for each in senders for name in each.sent for part in "ab")
    found: Counter[Any] = Counter()
    streams = [each for each in daemon.data.iterdir() if each.is_dir() and each.name[0] != "."]
    for stream in streams:
        found.update(record["n"] for record in daemon.records(stream.name))
    assert found == wanted
    assert 2 < len(streams) <= 13
    daemon.cli("verify")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_user_who_invents_names_leaves_some_to_others(
    start: Callable[..., Daemon], root: Path
) -> None:
    root.chmod(0o755)  # other users find the socket
    daemon = start(max_streams=50)

    def invent(uid: int, name: str, count: int) -> None:
        with socket.socket(socket.AF_UNIX) as sender:
            sender.settimeout(PATIENCE_S)
            with acting_as(uid):
                sender.connect(str(root / "log-stream"))
            for number in range(count):
                sender.sendall(f"<14>{name}{number}: {number}\n".encode())
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(1) == b""  # all of it is on disk

    invent(1234, "mine", 100)
    invent(1235, "yours", 3)
    assert daemon.records("yours0")
    status = json.loads(daemon.cli("status", "--json").stdout)
    fallback = [each["message"] for each in daemon.records("syslog")]
    assert status["totals"]["fallback_records"] == len(fallback) > 50
    assert all(f"{number}" in fallback for number in range(60, 100))
    assert b"fallback stream" in daemon.cli("status").stdout
    eventually(lambda: "too_many_streams" in daemon.events(), "too_many_streams")


JOURNAL = """
[[listen]]
path = "{root}/journal"
protocol = "journal"
type = "datagram"
stream = "{{app}}"
fallback = "journal"

[[listen]]
path = "{root}/stdout"
protocol = "journal-stdout"
stream = "{{app}}-{{uid}}"
fallback = "output"

[[route]]
where = "level >= error"
stream = "errors"
"""


def test_what_is_for_journald_goes_to_the_stream_of_its_program(root: Path) -> None:
    with contextlib.closing(Daemon(root, JOURNAL.format(root=root)).start()) as daemon:
        eventually(lambda: "listening" in daemon.events())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(root / "journal"))
            sender.send(
                b"MESSAGE=one\nSYSLOG_IDENTIFIER=Web\nPRIORITY=6\n\n"
                b"MESSAGE=two\nSYSLOG_IDENTIFIER=db\nPRIORITY=6\n\n"
                b"MESSAGE=three\nSYSLOG_IDENTIFIER=db\nPRIORITY=3\n\n"
                b"MESSAGE=four\n"
            )
            # What is too long for a datagram comes in a memory file.
            memory = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
            try:
                os.write(memory, b"SYSLOG_IDENTIFIER=web\nMESSAGE=" + b"x" * 300_000 + b"\n")
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, ALL_SEALS)
                socket.send_fds(sender, [b""], [memory])
            finally:
                os.close(memory)
        with socket.socket(socket.AF_UNIX) as stdout:
            stdout.connect(str(root / "stdout"))
            stdout.sendall(b"job\n\n6\n1\n0\n0\n0\nfive\n<3>six\nseven\n")
        output = f"job-{os.getuid()}"
        has(
            daemon,
            web=["one", "x" * 300_000],
            db=["two"],
            errors=["three", "six"],
            journal=["four"],
            **{output: ["five", "seven"]},
        )
        daemon.cli("verify")
