"""`tail -f` and the other readers beside a daemon that merges, seals, removes, or was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.crash_mark import CRASH_MARK_NAME, read_boot_id
from logengine.disk.durable_mark import MARKS_NAME, DurableMarks
from tests.daemon import PATIENCE_S, Daemon, eventually

MERGING = """
[commit]
rewrite_limit = "4KiB"
[compaction]
fanout = 3
seal_bytes = "16KiB"
seal_after = "300ms"
seal_small_after = "300ms"
"""
TRIMMED = MERGING + "[stream.app.retention]\nmax_bytes = 1\n"  # one seal is kept


class Tail:
    """`logengine tail -f --format json` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: Path) -> None:
        self.process = process
        self._errors = errors
        self.shown: list[dict[str, Any]] = []

    def show_until(self, number: int) -> None:
        """Reads what it shows, up to the record of that number."""
        assert self.process.stdout is not None
        while not self.shown or self.shown[-1]["_seq"] < number:
            line = self.process.stdout.readline()
            assert line, self.said()
            self.shown.append(json.loads(line))

    def seqs(self) -> list[int]:
        return [record["_seq"] for record in self.shown]

    def said(self) -> str:
        """All that is on standard error."""
        return self._errors.read_text()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        yield
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def tail(data: Path, *arguments: str) -> Iterator[Tail]:
    errors = data.with_name("tail-errors")
    command = [sys.executable, "-m", "logengine", "tail", "-f", "--format", "json"]
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            [*command, "--data", str(data), *arguments], stdout=subprocess.PIPE, stderr=stderr
        ) as process,
    ):
        try:
            yield Tail(process, errors)
        finally:
            process.kill()


def send(daemon: Daemon, numbers: range) -> None:
    """Each in a commit of its own."""
    producer = daemon.connect()
    producer.hello(stream="app", producer="p")
    for number in numbers:
        producer.send(b'{"i":%d,"x":"%s"}\n' % (number, os.urandom(100).hex().encode()))
        producer.wait_for_ack(number)
    producer.close()


def names(daemon: Daemon) -> set[str]:
    return {name for name in os.listdir(daemon.data / "app") if name[0].isdigit()}


def test_a_follower_that_was_held_up_says_nothing_of_what_was_merged_meanwhile(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(MERGING)
    send(daemon, range(1, 5))
    with tail(daemon.data, "app") as follower:
        follower.show_until(4)
        with follower.held_up():
            send(daemon, range(5, 90))
            eventually(lambda: all(name.endswith(".zst") for name in names(daemon)), "seals")
        follower.show_until(89)
        assert follower.seqs() == list(range(1, 90))
        assert follower.end() == 130
        assert follower.said() == ""


def test_a_follower_slower_than_retention_says_once_what_is_gone(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon(TRIMMED)
    send(daemon, range(1, 5))
    with tail(daemon.data, "app") as follower:
        follower.show_until(4)
        with follower.held_up():
            send(daemon, range(5, 300))
            eventually(
                lambda: len(names(daemon)) == 1 and next(iter(names(daemon))).endswith(".zst"),
                "all but one seal to be removed",
            )
            first = int(next(iter(names(daemon)))[:20])
        send(daemon, range(300, 302))
        follower.show_until(301)
        assert follower.seqs() == [1, 2, 3, 4, *range(first, 302)]
        assert follower.end() == 130
        note = f"note: app: records 5 to {first - 1} were removed before they were read, "
        assert follower.said().splitlines() == [
            f"logengine: {note}by retention or to make room on a full disk"
        ]
        gaps = {record["_seq"]: record["_gaps"] for record in follower.shown if "_gaps" in record}
        assert gaps == {first: [{"first": 5, "last": first - 1, "reason": "removed"}]}


@pytest.mark.parametrize("streams", [(), ("app",)])
def test_of_a_stream_whose_directory_is_removed_nothing_shown_is_said_to_be_gone(
    daemon: Daemon, streams: tuple[str, ...]
) -> None:
    send(daemon, range(1, 6))
    with tail(daemon.data, *streams, "-n", "1") as follower:
        follower.show_until(5)
        for last in (10, 15, 20):
            send(daemon, range(last - 4, last + 1))
            follower.show_until(last)
            shutil.rmtree(daemon.data / "app")
        send(daemon, range(21, 23))
        follower.show_until(22)
        assert follower.seqs() == list(range(5, 23))
        assert not any("_gaps" in record for record in follower.shown)
        assert follower.said() == ""


def test_of_a_stream_whose_directory_is_removed_what_was_not_shown_is_said_to_be_gone(
    daemon: Daemon,
) -> None:
    send(daemon, range(1, 6))
    with tail(daemon.data, "app") as follower:
        follower.show_until(5)
        with follower.held_up():
            send(daemon, range(6, 9))
            shutil.rmtree(daemon.data / "app")
            send(daemon, range(9, 11))
        follower.show_until(10)
        assert follower.seqs() == [1, 2, 3, 4, 5, 9, 10]
        gaps = {record["_seq"]: record["_gaps"] for record in follower.shown if "_gaps" in record}
        assert gaps == {9: [{"first": 6, "last": 8, "reason": "removed"}]}
        assert len(follower.said().splitlines()) == 1


@pytest.mark.parametrize("streams", [(), ("app",)])
def test_a_new_stream_of_the_same_name_is_shown_from_its_first_record_on(
    daemon: Daemon, streams: tuple[str, ...]
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"1\n2\n3\n")
    with tail(daemon.data, *streams) as follower:
        follower.show_until(3)
        daemon.stop()
        shutil.rmtree(daemon.data / "app")
        daemon.start()
        follower.shown.clear()
        daemon.cli("send", "-s", "app", stdin=b"one\n")
        follower.show_until(1)
        daemon.cli("send", "-s", "app", stdin=b"two\n")
        follower.show_until(2)
        assert [record["message"] for record in follower.shown] == ["one", "two"]
        assert not any("_gaps" in record for record in follower.shown)
        assert follower.said() == ""


@pytest.fixture
def trimmed(make_daemon: Callable[[str], Daemon]) -> Daemon:
    """A daemon that is stopped, whose stream begins late."""
    daemon = make_daemon(TRIMMED)
    send(daemon, range(1, 200))
    eventually(lambda: "segment_removed" in daemon.events(), "a removal")
    assert daemon.stop() == 0
    return daemon


def first_kept(daemon: Daemon) -> int:
    return min(int(name[:20]) for name in names(daemon))


@pytest.mark.parametrize("command", ["cat", "export"])
def test_a_cursor_older_than_what_is_kept_is_told_what_is_gone(
    trimmed: Daemon, command: str
) -> None:
    first = first_kept(trimmed)
    form = ["--format", "json"] if command == "cat" else []
    done = trimmed.cli(command, "--after", "app:1", *form)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[0]["_gaps"] == [{"first": 2, "last": first - 1, "reason": "removed"}]
    assert not any("_gaps" in record for record in records[1:])
    assert done.stderr.decode().startswith(f"logengine: note: app: records 2 to {first - 1} were")
    assert len(done.stderr.splitlines()) == 1
    raw = trimmed.cli("cat", "--after", "app:1", "--format", "raw").stdout
    assert [json.loads(line) for line in raw.splitlines()] == [
        {key: value for key, value in record.items() if key not in ("_stream", "_seq", "_gaps")}
        for record in records
    ]


def test_who_asks_for_what_there_is_is_told_of_nothing(trimmed: Daemon) -> None:
    for arguments in (
        ["cat", "app"],
        ["tail", "app"],
        ["cat", "--after", f"app:{first_kept(trimmed) - 1}"],
    ):
        done = trimmed.cli(*arguments, "--format", "json")
        assert done.stderr == b""
        assert b"_gaps" not in done.stdout


def test_nothing_is_said_of_a_stream_that_is_being_made_again_and_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "app").mkdir(parents=True)
    with (
        tail(data, "app") as follower,
        subprocess.Popen(
            [sys.executable, "-c", _REMAKER, str(data / "app")], stdin=subprocess.PIPE
        ) as remaker,
    ):
        for _ in range(5):
            for command in (["cat", "app"], ["tail", "app"], ["ls", "app"], ["ls"]):
                done = subprocess.run(
                    [sys.executable, "-m", "logengine", *command, "--data", str(data)],
                    capture_output=True,
                    check=False,
                )
                assert (done.returncode, done.stderr) == (0, b""), command
        assert follower.process.poll() is None
        assert follower.end() == 130
        remaker.communicate(b"")
        assert follower.said() == ""


_REMAKER = """
import os, select, sys
while not select.select([sys.stdin], [], [], 0.001)[0]:
    os.rmdir(sys.argv[1])
    os.mkdir(sys.argv[1])
"""


def test_a_stream_that_does_not_come_is_said_to_be_awaited(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"1\n")
    with tail(daemon.data, "web", "app") as follower:
        follower.show_until(1)
        eventually(follower.said, "a word of what is awaited")
        expected = f"logengine: waiting for stream web in {daemon.data}; there are: app\n"
        assert follower.said() == expected


@pytest.fixture
def killed(root: Path) -> Iterator[Daemon]:
    """A data directory whose daemon died with record 3 visible, and not known to be durable."""
    daemon = Daemon(root).start()
    daemon.cli("send", "-s", "app", stdin=b"1\n2\n3\n")
    eventually((daemon.data / MARKS_NAME / "app").exists, "the mark")
    daemon.kill()
    DurableMarks(daemon.data, read_boot_id()).begin("app", 2)
    yield daemon
    daemon.close()


@pytest.mark.parametrize("streams", [(), ("app",)])
def test_what_no_daemon_knew_to_be_durable_is_shown_when_one_does(
    killed: Daemon, streams: tuple[str, ...]
) -> None:
    with tail(killed.data, *streams) as follower:
        follower.show_until(2)
        killed.start()
        follower.show_until(3)
        killed.cli("send", "-s", "app", stdin=b"4\n")
        follower.show_until(4)
        assert follower.seqs() == [1, 2, 3, 4]
        assert follower.said() == ""


def test_who_does_not_follow_sees_what_there_is(killed: Daemon) -> None:
    assert len(killed.cli("tail", "app").stdout.splitlines()) == 3


@pytest.mark.parametrize("streams", [(), ("app",)])
def test_a_follower_goes_on_across_daemons_that_end_well_or_not(
    root: Path, streams: tuple[str, ...]
) -> None:
    daemon = Daemon(root).start()
    daemon.cli("send", "-s", "app", stdin=b"1\n")
    with tail(daemon.data, *streams) as follower:
        follower.show_until(1)
        for number in range(2, 8):
            if number % 2:
                daemon.stop()
                assert not (daemon.data / MARKS_NAME).exists()
            else:
                daemon.kill()
            daemon.start()
            daemon.cli("send", "-s", "app", stdin=b"next\n")
            follower.show_until(number)
        assert follower.seqs() == list(range(1, 8))
        assert follower.said() == ""
    daemon.stop()


def test_without_marks_a_follower_syncs_for_itself(killed: Daemon) -> None:
    shutil.rmtree(killed.data / MARKS_NAME)
    with tail(killed.data) as follower:
        follower.show_until(3)
        assert follower.said() == ""


def test_a_copy_is_followed_without_the_marks_of_the_original(killed: Daemon) -> None:
    copy = killed.data.with_name("copy")
    shutil.copytree(killed.data, copy)
    assert (copy / CRASH_MARK_NAME).exists()
    with tail(copy) as follower:
        follower.show_until(3)
        assert follower.said() == ""
