"""`logengine tail --until-match`: how a script waits for a record."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.daemon import PATIENCE_S, Daemon

NOT_SOON = "60s"


def tail(daemon: Daemon, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "logengine", "tail", "--format", "raw", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
    )


def messages(printed: bytes) -> list[str]:
    return [line.split('"message":"')[1][:-2] for line in printed.decode().splitlines()]


def test_it_ends_after_the_record_that_was_awaited(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"before\n")
    waiting = tail(daemon, "app", "--until-match", "message=ready", "--timeout", NOT_SOON)
    assert waiting.stdout is not None
    first = waiting.stdout.readline()
    daemon.cli("send", "-s", "app", stdin=b"starting\nready\nlater\n")
    rest, told = waiting.communicate(timeout=PATIENCE_S)
    assert (waiting.returncode, told) == (0, b"")
    assert messages(first + rest) == ["before", "starting", "ready"]


def test_a_record_of_the_last_ones_counts_too(daemon: Daemon) -> None:
    for stream in ("app", "web"):
        daemon.cli("send", "-s", stream, stdin=b"one\nready\nthree\n")
    found = tail(daemon, "--until-match", "message=ready", "--timeout", NOT_SOON)
    printed, _ = found.communicate(timeout=PATIENCE_S)
    assert found.returncode == 0
    assert messages(printed) == ["one", "ready"]


def test_its_status_says_that_the_time_is_over(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"ready\n")
    over = tail(daemon, "app", "-n", "0", "--until-match", "message=ready", "--timeout", "300ms")
    printed, told = over.communicate(timeout=PATIENCE_S)
    assert (over.returncode, printed) == (3, b"")
    assert told == b"logengine: no record matched within 300ms\n"


def test_its_status_says_that_the_stream_is_gone(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    gone = tail(daemon, "app", "--until-match", "message=ready", "--timeout", NOT_SOON)
    assert gone.stdout is not None
    assert gone.stdout.readline()
    daemon.stop()
    shutil.rmtree(daemon.data / "app")
    _, told = gone.communicate(timeout=PATIENCE_S)
    assert gone.returncode == 4
    assert b"the stream was removed" in told


def test_a_stream_that_does_not_exist_yet_is_awaited(daemon: Daemon) -> None:
    waiting = tail(daemon, "app", "--until-match", "message=ready", "--timeout", NOT_SOON)
    assert waiting.stderr is not None
    assert b"waiting for stream app" in waiting.stderr.readline()
    daemon.cli("send", "-s", "app", stdin=b"ready\n")
    assert waiting.wait(PATIENCE_S) == 0
    waiting.communicate()


def test_it_is_not_found_if_nobody_reads(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    unread = tail(daemon, "app", "--until-match", "message=ready", "--timeout", NOT_SOON)
    assert unread.stdout is not None
    assert unread.stdout.readline()
    unread.stdout.close()
    assert unread.wait(PATIENCE_S) == 141
    assert unread.stderr is not None
    assert unread.stderr.read() == b""
    unread.stderr.close()


def test_following_for_some_time_is_no_failure(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    done = tail(daemon, "-f", "--timeout", "300ms")
    printed, told = done.communicate(timeout=PATIENCE_S)
    assert (done.returncode, told) == (0, b"")
    assert messages(printed) == ["one"]


@pytest.mark.parametrize("arguments", [["--timeout", "1s"], ["-f", "--timeout", "9" * 400]])
def test_a_timeout_that_cannot_be_is_refused(daemon: Daemon, arguments: list[str]) -> None:
    done = daemon.cli("tail", *arguments, status=2)
    assert b"--timeout" in done.stderr
    assert done.stderr.count(b"Error:") == 1


def test_what_is_awaited_is_an_expression_of_the_filter_language(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"level":"info","message":"a"}\n')
    daemon.cli("send", "-s", "app", stdin=b'{"level":"error","message":"b"}\n')
    until = ["--until-match", "level >= warning and message ~ '^b'", "--timeout", NOT_SOON]
    assert messages(daemon.cli("tail", "--format", "raw", *until).stdout) == ["a", "b"]
    assert b"^" in daemon.cli("tail", "--until-match", "level >=", status=2).stderr
