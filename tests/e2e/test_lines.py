"""The protocol `lines` with a real daemon, over stream and datagram sockets."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S, Daemon, eventually

LISTEN = """
[[listen]]
path = "{root}/lines"
protocol = "lines"
stream = "text"

[[listen]]
path = "{root}/datagrams"
protocol = "lines"
type = "datagram"
stream = "text"
"""


class Receiver:
    """A daemon that takes lines, and the ways to send them."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.root = root
        self.daemon = Daemon(root, config + LISTEN.format(root=root))

    def stream(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.root / "lines"))
        return connection

    def datagrams(self) -> socket.socket:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.settimeout(PATIENCE_S)
        sender.connect(str(self.root / "datagrams"))
        return sender

    def messages(self) -> list[str]:
        values = self.daemon.values("text")
        return [value["message"] for value in values if "message" in value]

    def has(self, *messages: str) -> None:
        """Returns when these are on disk, and nothing else."""
        expected = list(messages)
        eventually(lambda: self.messages() == expected, f"{expected}, and not {self.messages()}")


def test_over_a_stream_each_line_is_a_message_and_the_end_comes_when_all_is_on_disk(
    receiver: Receiver,
) -> None:
    with receiver.stream() as sender:
        sender.sendall(b'{"_hello":1,"stream":"other"}\n{"_status":1}\n\n \r\nplain\r\n')
        sender.sendall(b"nul \0 and \xff\nhalf a li")
        sender.sendall(b"ne, and no newline")
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""  # nothing is answered
    assert receiver.messages() == [
        '{"_hello":1,"stream":"other"}',
        '{"_status":1}',
        "plain",
        "nul \0 and \\xff",
        "half a line, and no newline",
    ]
    record = receiver.daemon.records("text")[0]
    assert (record["_pid"], record["_uid"]) == (os.getpid(), os.getuid())
    assert not (receiver.daemon.data / "other").exists()


def test_over_datagrams_each_line_is_a_message_and_its_senders(receiver: Receiver) -> None:
    with receiver.datagrams() as sender:
        for data in (b"one", b"two\n", b"", b"three\nfour\n\n", b'{"a":1}', b"nul\0"):
            sender.send(data)
        receiver.has("one", "two", "three", "four", '{"a":1}', "nul\0")
    send = (
        "import os, socket, sys\n"
        "sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "sender.connect(sys.argv[1])\n"
        "os.getuid() or os.setresuid(1234, 1234, 1234)\n"
        "sender.send(b'from another process')\n"
        "print(os.getpid())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", send, str(receiver.root / "datagrams")],
        check=True,
        capture_output=True,
    )
    *own, other = eventually(
        lambda: len(receiver.messages()) == 7 and receiver.daemon.records("text")
    )
    assert {record["_pid"] for record in own} == {os.getpid()}
    assert (other["_pid"], other["_uid"]) == (int(done.stdout), os.getuid() or 1234)
    status = json.loads(receiver.daemon.cli("status", "--json").stdout)
    assert status["totals"]["datagrams"] == 7


def test_a_line_longer_than_a_record_comes_in_pieces(
    make_receiver: Callable[[str], Receiver],
) -> None:
    receiver = make_receiver('[limits]\nmax_record = "100B"')
    line = "0123456789" * 25
    with receiver.stream() as stream, receiver.datagrams() as datagrams:
        stream.sendall(f"{line}\nshort\n".encode())
        receiver.has(line[:100], line[100:200], line[200:], "short")
        datagrams.send(f"{line}\nshort".encode())
        receiver.has(*([line[:100], line[100:200], line[200:], "short"] * 2))
    partial = [value.get("partial", False) for value in receiver.daemon.values("text")]
    assert partial == [True, True, False, False] * 2


def test_a_stop_takes_what_was_sent_and_half_a_line_too(receiver: Receiver) -> None:
    with receiver.stream() as stream, receiver.datagrams() as datagrams:
        for number in range(100):
            datagrams.send(b"datagram %d" % number)
        stream.sendall(b"line\nhalf a li")
        assert receiver.daemon.stop() == 0
        assert stream.recv(1) == b""
        with pytest.raises(OSError, match=r"refused|Broken pipe"):
            datagrams.send(b"too late")
    messages = receiver.messages()
    assert [m for m in messages if m.startswith("datagram")] == [
        f"datagram {n}" for n in range(100)
    ]
    assert [m for m in messages if not m.startswith("datagram")] == ["line", "half a li"]
    assert not (receiver.root / "datagrams").exists()


def test_the_sockets_of_a_daemon_that_was_killed_are_taken_over(receiver: Receiver) -> None:
    with receiver.datagrams() as sender:
        sender.send(b"before")
        receiver.has("before")
        receiver.daemon.kill()
        with pytest.raises(ConnectionRefusedError):
            sender.send(b"nobody is there")
    receiver.daemon.start()
    with receiver.datagrams() as sender, receiver.stream() as stream:
        sender.send(b"after")
        receiver.has("before", "after")
        stream.sendall(b"stream\n")
        receiver.has("before", "after", "stream")


def test_a_users_quota_counts_what_comes_over_either_socket(
    make_receiver: Callable[[str], Receiver],
) -> None:
    receiver = make_receiver(
        f'[uid.{os.getuid()}.quota]\nrecords_per_s = 1\nburst = "10s"\nover = "drop"\n'
    )
    with receiver.stream() as stream, receiver.datagrams() as datagrams:
        stream.sendall(b"1\n2\n3\n4\n")
        receiver.has(*"1234")
        for number in range(5, 30):
            datagrams.send(b"%d" % number)
        eventually(lambda: len(receiver.messages()) >= 10)
    status = eventually(
        lambda: (
            (found := json.loads(receiver.daemon.cli("status", "--json").stdout)["totals"])
            and found["datagrams"] == 25
            and found
        )
    )
    # What was received last may not be on disk yet.
    eventually(lambda: len(receiver.messages()) == 29 - status["over_quota_records"])
    assert receiver.messages()[:10] == [str(number) for number in range(1, 11)]


def test_who_is_over_a_quota_that_blocks_waits_and_loses_nothing(
    make_receiver: Callable[[str], Receiver],
) -> None:
    receiver = make_receiver('[stream.text.quota]\nrecords_per_s = 20\nburst = "100ms"\n')
    with receiver.datagrams() as datagrams:
        datagrams.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            for number in range(1000):
                datagrams.send(b"%d" % number)
                sent += 1
        assert sent < 1000
        receiver.has(*(str(number) for number in range(sent)))


RUN_WITH_DESCRIPTOR = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
    "os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1';"
    "os.execv(sys.executable, [sys.executable, '-m', 'logengine', 'run',"
    " '--data', sys.argv[2], '--config', sys.argv[3]])"
)


def run_with(listener: socket.socket, root: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "-c", RUN_WITH_DESCRIPTOR, str(listener.fileno())),
            *(str(root / "data"), str(root / "logengine.toml")),
        ],
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
    )


def test_what_comes_to_a_socket_of_systemd_while_no_daemon_runs_is_taken_by_the_next(
    root: Path,
) -> None:
    daemon = Daemon(
        root, f'[[listen]]\npath = "{root}/datagrams"\nprotocol = "lines"\ntype = "datagram"\n'
    )

    def messages() -> list[str]:
        return [value["message"] for value in daemon.values()]

    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # PassCredentials=yes
        listener.bind(str(root / "datagrams"))
        sender.connect(str(root / "datagrams"))
        for number in (1, 2):
            sender.send(b"while none runs, %d" % number)
            process = run_with(listener, root)
            try:
                eventually(lambda number=number: len(messages()) == number)  # type: ignore[misc]
            finally:
                process.terminate()
                _, said = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, said
        assert messages() == ["while none runs, 1", "while none runs, 2"]
        assert {record["_pid"] for record in daemon.records()} == {os.getpid()}
        assert (root / "datagrams").exists()


def test_a_socket_of_systemd_of_the_other_type_is_refused(root: Path) -> None:
    (root / "logengine.toml").write_text(f'[[listen]]\npath = "{root}/s"\nprotocol = "lines"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(root / "s"))
        process = run_with(listener, root)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"not of type 'stream'" in said.splitlines()[-1]
    assert b"Traceback" not in said
