"""Starting, stopping, and what goes wrong beneath the daemon."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S, Daemon, Producer, eventually, nices


def refused(daemon: Daemon) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "logengine", "run", "--data", str(daemon.data)),
            *("--socket", str(daemon.socket)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return line


def test_a_daemon_imports_nothing_that_only_a_screen_needs(root: Path) -> None:
    daemon = Daemon(root, program=("-X", "importtime", "-m", "logengine")).start()
    daemon.close()
    said = daemon.log_path.read_text().splitlines()
    imported = {each.rpartition("|")[2].strip() for each in said if each.startswith("import time:")}
    assert "structlog.dev" in imported
    assert not {each for each in imported if each.startswith(("rich.", "textual"))}


def test_a_second_daemon_on_the_same_data_is_refused(daemon: Daemon) -> None:
    assert refused(daemon).startswith(f"logengine: {daemon.data} is in use by another")


def test_a_second_daemon_at_the_same_socket_is_refused(daemon: Daemon, root: Path) -> None:
    daemon.data = root / "other"
    assert "another process listens there already" in refused(daemon)
    assert daemon.socket.exists()


def test_a_file_that_is_no_socket_is_not_removed(root: Path) -> None:
    daemon = Daemon(root)
    daemon.socket.write_text("precious")
    assert "not a socket" in refused(daemon)
    assert daemon.socket.read_text() == "precious"


def test_the_socket_of_a_killed_daemon_is_taken_over(daemon: Daemon) -> None:
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o666


def test_a_socket_that_is_removed_is_made_again(daemon: Daemon) -> None:
    producer = daemon.connect()
    producer.hello(stream="app", producer="p")
    daemon.socket.unlink()
    eventually(daemon.listens, "the socket to be there again")
    producer.send(b"1\n")
    producer.wait_for_ack(1)  # who was connected still is
    daemon.cli("send", "-s", "app", stdin=b"2\n")
    assert daemon.stop() == 0
    assert daemon.events().count("socket_removed") == 1
    assert not daemon.socket.exists()


def test_a_directory_of_the_socket_that_is_removed_is_made_again(root: Path) -> None:
    (root / "run").mkdir()
    daemon = Daemon(root)
    daemon.socket = root / "run" / "socket"
    with contextlib.closing(daemon):
        daemon.start()
        shutil.rmtree(root / "run")
        eventually(daemon.listens, "the socket to be there again")
        daemon.cli("send", stdin=b"1\n")


def put_in_the_way(path: Path) -> None:
    """In one step: the daemon puts a socket in its place again as soon as there is none."""
    other = path.with_name("other")
    other.write_text("in the way")
    other.rename(path)


def test_what_took_the_place_of_the_socket_is_left_alone_and_said_once(daemon: Daemon) -> None:
    put_in_the_way(daemon.socket)
    eventually(lambda: "socket_gone" in daemon.events(), "it to be said")
    daemon.socket.rename(daemon.socket.with_name("elsewhere"))
    eventually(daemon.listens, "the socket to be there again")
    assert daemon.events().count("socket_gone") == 1
    put_in_the_way(daemon.socket)
    assert daemon.stop() == 0
    assert daemon.socket.read_text() == "in the way"


@pytest.mark.parametrize("limit", [256, 64])
def test_connections_leave_descriptors_for_what_is_committed(root: Path, limit: int) -> None:
    daemon = Daemon(root, open_files_max=limit)
    with contextlib.closing(daemon):
        daemon.start()
        senders = []
        for number in range(limit + 20):
            senders.append(daemon.connect())
            senders[-1].send(b'{"_hello":1,"stream":"app"}\n{"n":%d}\n' % number)
        eventually(lambda: "max_connections_lowered" in daemon.events(), "the limit to be said")
        (lowered,) = [line for line in daemon.log() if line["event"] == "max_connections_lowered"]
        accepted = lowered["max_connections"]
        assert limit / 3 <= accepted < limit
        for sender in senders[: accepted - 1]:  # one place was taken by the look at the start
            assert "welcome" in sender.answer()
            sender.wait_for_ack(1)
        for sender in senders:
            sender.close()
        eventually(lambda: len(daemon.values("app")) == limit + 20, "the others to be taken")
        assert "commit_failed" not in daemon.events()
        assert "accept_failed" not in daemon.events()


def test_a_stop_commits_what_was_sent_where_no_place_is_left(root: Path) -> None:
    other, queue = root / "other", root / "queue"
    listeners = f"""
        [[listen]]
        path = "{root / "socket"}"
        [[listen]]
        path = "{other}"
        [[listen]]
        path = "{queue}"
        protocol = "lines"
        type = "datagram"
        stream = "datagrams"
        [limits]
        max_connections = 2
    """
    daemon = Daemon(root, listeners)
    with contextlib.closing(daemon):
        daemon.start()
        assert daemon.process is not None
        named, nameless = daemon.connect(), Producer(other)
        named.hello(stream="app", producer="p")
        nameless.send(b"early\n")
        eventually(lambda: len(daemon.values()) == 1, "the two to have their places")
        waiting = Producer(other)  # one more than there are places
        daemon.process.send_signal(signal.SIGSTOP)
        named.send(b"1\n")
        nameless.send(b"late\n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(queue))
            sender.send(b"datagram")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGCONT)
        assert daemon.process.wait(PATIENCE_S) == 0
        assert named.answer() == {"ack": 1}
        assert named.answer() == {"goodbye": "stopping"}
        assert nameless.socket.recv(1) == b""
        assert [value["message"] for value in daemon.values()] == ["early", "late"]
        assert [value["message"] for value in daemon.values("datagrams")] == ["datagram"]
        nameless.close()
        waiting.close()


def test_recovery_removes_temps_and_tells_what_it_found(daemon: Daemon) -> None:
    daemon.cli("send", stdin=b"one\ntwo\n")
    daemon.kill()
    (daemon.data / "default" / ".00000000000000000001.ndjson.ab.tmp").write_bytes(b"{")
    daemon.start()
    # A thread writes the log: the daemon may listen before its line is there.
    (recovered,) = eventually(
        lambda: [entry for entry in daemon.log() if entry["event"] == "recovered"][1:]
    )
    assert (recovered["streams"], recovered["records"], recovered["temps_removed"]) == (1, 2, 1)
    assert os.listdir(daemon.data / "default") == ["00000000000000000001.ndjson"]


def test_kills_between_the_records_of_a_waiting_sender_leave_no_temp_file(root: Path) -> None:
    directory = root / "data" / "app"

    def temps() -> list[str]:
        return [name for name in os.listdir(directory) if name.endswith(".tmp")]

    numbers: list[int] = []
    daemon = Daemon(root, '[commit]\nin_loop_below = "1h"\n')
    with contextlib.closing(daemon):
        for _ in range(3):
            daemon.start()
            sender = daemon.connect()
            sender.hello(stream="app")
            assert not numbers or not temps()
            acked = 0
            # The file for the next record is there once a few came one after the other.
            while acked < 3 or not temps():
                acked += 1
                numbers.append(len(numbers))
                sender.send(b'{"n":%d}\n' % numbers[-1])
                sender.wait_for_ack(acked)
            daemon.kill()
            assert len(temps()) == 1
        daemon.start()
        assert not temps()
        assert [value["n"] for value in daemon.values("app")] == numbers
        daemon.cli("verify")


def test_an_active_segment_goes_on_after_a_restart(daemon: Daemon) -> None:
    for text in (b"one\n", b"two\n"):
        daemon.cli("send", stdin=text)
        daemon.stop()
        daemon.start()
    assert os.listdir(daemon.data / "default") == ["00000000000000000001.ndjson"]
    assert [value["message"] for value in daemon.values()] == ["one", "two"]


@pytest.mark.parametrize("damage", [b"", b"\0" * 500, b'{"_segment":1}\n'])
def test_a_damaged_newest_segment_stops_nothing_and_stays(daemon: Daemon, damage: bytes) -> None:
    daemon.cli("send", stdin=b"one\n")
    daemon.stop()
    broken = daemon.data / "default" / "00000000000000000001.ndjson"
    broken.write_bytes(damage)
    daemon.start()
    daemon.cli("send", stdin=b"two\n")
    assert broken.read_bytes() == damage
    eventually(lambda: "segment_damaged" in daemon.events(), "segment_damaged")
    done = daemon.cli("cat", "--format", "raw", status=1)
    assert json.loads(done.stdout)["message"] == "two"
    assert str(broken).encode() in done.stderr
    assert str(broken).encode() in daemon.cli("verify", status=1).stdout


def test_a_stream_that_fails_holds_up_no_other_and_goes_on_by_itself(daemon: Daemon) -> None:
    # What stands in the way of its directory is a file.
    daemon.data.joinpath("bad").write_text("in the way")
    bad = daemon.connect()
    bad.hello(stream="bad")
    bad.send(b"waits\n")
    good = daemon.connect()
    good.hello(stream="good")
    for number in range(1, 20):
        good.send(b"goes\n")
        good.wait_for_ack(number)
    eventually(lambda: "commit_failed" in daemon.events())
    daemon.data.joinpath("bad").unlink()
    bad.wait_for_ack(1)
    assert daemon.values("bad") == [{"message": "waits"}]
    eventually(lambda: "stream_recovered" in daemon.events(), "stream_recovered")


def test_a_stream_that_cannot_be_recovered_is_named_and_tried_again(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    daemon.cli("send", "-s", "other", stdin=b"one\n")
    daemon.stop()
    # A directory in the place of a temp cannot be unlinked.
    in_the_way = daemon.data / "app" / ".x.tmp"
    in_the_way.mkdir()
    daemon.start()
    eventually(lambda: "stream_not_recovered" in daemon.events(), "the stream to be named")
    daemon.cli("send", "-s", "other", stdin=b"two\n")
    waiting = daemon.connect()
    waiting.hello(stream="app")
    waiting.send(b"two\n")
    in_the_way.rmdir()
    waiting.wait_for_ack(1)
    assert [value["message"] for value in daemon.values("app")] == ["one", "two"]


def test_what_cannot_be_committed_in_stop_timeout_was_not_acked(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('stop_timeout = "300ms"\n')
    daemon.data.joinpath("bad").write_text("in the way")
    bad = daemon.connect()
    bad.hello(stream="bad")
    bad.send(b"lost, and not acked\n")
    eventually(lambda: "commit_failed" in daemon.events())
    assert daemon.stop() == 0
    assert bad.answer() == {}
    assert {"stop_timeout", "records_dropped"} <= set(daemon.events())


def test_end_of_file_is_no_ack_where_a_stop_ran_out_of_time(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('stop_timeout = "300ms"\n')
    stored = daemon.connect()
    stored.send(b"stored\n")
    eventually(lambda: daemon.values("default"))
    os.rename(daemon.data, daemon.data.with_name("elsewhere"))
    senders = [daemon.connect() for _ in range(3)]
    for sender in senders:
        sender.send(b"lost, and not acked\n")
    senders[0].socket.shutdown(socket.SHUT_WR)
    senders[1].send(b"half a li")
    eventually(lambda: "data_directory_unusable" in daemon.events())
    daemon.stop()
    eventually(lambda: "records_dropped" in daemon.events(), "records_dropped")
    for sender in senders:
        assert sender.answer()["error"] == "not_durable"
        assert sender.answer() == {}
    assert stored.answer() == {}


def test_compaction_steps_back_behind_everything_else(daemon: Daemon) -> None:
    def nices_of_threads() -> list[int]:
        assert daemon.process is not None
        tasks = Path(f"/proc/{daemon.process.pid}/task").iterdir()
        return nices("".join((task / "stat").read_text() for task in tasks))

    daemon.cli("send", stdin=b"one\n")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    eventually(lambda: nices_of_threads().count(own + 5) == 1, "the thread of compaction")
    assert set(nices_of_threads()) == {own, own + 5}


def test_a_socket_of_systemd_is_used_and_left_alone(root: Path) -> None:
    path = root / "socket"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        listener.bind(str(path))
        listener.listen()
        notified.bind(str(root / "notify"))
        notified.settimeout(PATIENCE_S)
        # Without pass_fds' renumbering: descriptor 3 is what systemd passes first.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1';"
            "os.execv(sys.executable, [sys.executable, '-m', 'logengine', 'run',"
            " '--data', sys.argv[2], '--socket', sys.argv[3]])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(listener.fileno()), str(root / "data"), str(path)],
            pass_fds=[listener.fileno()],
            env=os.environ | {"NOTIFY_SOCKET": str(root / "notify")},
            stderr=subprocess.DEVNULL,
        )
        assert notified.recv(100).startswith(b"READY=1")
        with socket.socket(socket.AF_UNIX) as sender:
            sender.connect(str(path))
            sender.sendall(b"hello\n")
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(1) == b""
        process.terminate()
        assert notified.recv(100).startswith(b"STOPPING=1")
        assert process.wait(PATIENCE_S) == 0
        assert path.exists()
    assert (root / "data" / "default" / "00000000000000000001.ndjson").exists()


def test_a_failing_default_stream_holds_up_no_other(root: Path) -> None:
    daemon = Daemon(root)
    daemon.data.mkdir()
    in_the_way = daemon.data / "default"
    in_the_way.write_text("no directory")
    with contextlib.closing(daemon):
        daemon.start()
        daemon.connect().send(b'{"n":1}\n')
        eventually(lambda: b"commit_failed" in daemon.log_path.read_bytes(), "the failure")
        other = daemon.connect()
        assert other.hello(stream="web", producer="p")["next"] == 1
        other.send(b'{"n":2}\n')
        other.wait_for_ack(1)
        in_the_way.unlink()
        eventually(lambda: in_the_way.is_dir() and daemon.values() == [{"n": 1}], "the record")
        assert daemon.values("web") == [{"n": 2}]
