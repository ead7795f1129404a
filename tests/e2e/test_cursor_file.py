"""`--cursor-file`: `cat` and `tail` continue after what they printed last."""

import asyncio
import io
import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logengine.disk.segment_file import list_segments
from logengine.format.segment import segment_name
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig.oracle import addition
from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_cli import LOGENGINE


@pytest.fixture
def cursors(root: Path) -> Path:
    return root / "cursors"


def printed(daemon: Daemon, *arguments: str, status: int = 0) -> list[str]:
    lines = daemon.cli(*arguments, "--format", "json", status=status).stdout.splitlines()
    return [json.loads(line)["message"] for line in lines]


def send(daemon: Daemon, stream: str, *messages: str) -> None:
    daemon.cli("send", "-s", stream, stdin="".join(f"{each}\n" for each in messages).encode())


@pytest.mark.parametrize("command", ["cat", "tail"])
@pytest.mark.parametrize("streams", [["app", "web"], []])
def test_each_run_prints_what_came_since_the_last(
    daemon: Daemon, cursors: Path, command: str, streams: list[str]
) -> None:
    send(daemon, "app", "a1", "a2")
    send(daemon, "web", "w1")
    run = [command, *streams, "--cursor-file", str(cursors)]
    assert printed(daemon, *run) == ["a1", "a2", "w1"]
    assert cursors.read_text() == "app:2\nweb:1\n"
    assert printed(daemon, *run) == []
    send(daemon, "web", *(f"w{number}" for number in range(2, 20)))
    assert printed(daemon, *run) == [f"w{number}" for number in range(2, 20)]
    assert cursors.read_text() == "app:2\nweb:19\n"
    if not streams:
        send(daemon, "new", "n1")
        assert printed(daemon, *run) == ["n1"]


def test_only_what_was_printed_moves_the_cursor(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "x1", "y1", "x2", "y2")
    run = ["cat", "app", "--cursor-file", str(cursors)]
    assert printed(daemon, *run, "--grep", "x") == ["x1", "x2"]
    assert cursors.read_text() == "app:3\n"
    assert printed(daemon, *run) == ["y2"]


def test_a_first_tail_of_no_record_begins_now(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "old")
    run = ["tail", "-n", "0", "--cursor-file", str(cursors)]
    assert printed(daemon, *run) == []
    assert cursors.read_text() == "app:1\n"
    send(daemon, "app", "new 1", "new 2")
    assert printed(daemon, *run) == ["new 1", "new 2"]


def test_a_follower_notes_what_it_printed(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "one", "two")
    run = ["tail", "-f", "-n", "1", "--format", "raw", "--cursor-file", str(cursors)]
    for expected in ("two", "three"):
        with subprocess.Popen(
            [*LOGENGINE, *run],
            stdout=subprocess.PIPE,
            env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
        ) as following:
            assert following.stdout is not None
            assert f'"{expected}"'.encode() in following.stdout.readline()
            eventually(cursors.exists, "the cursors to be saved")
            following.send_signal(signal.SIGINT)
            assert following.wait(PATIENCE_S) == 130
        send(daemon, "app", "three")
    assert cursors.read_text() == "app:3\n"


def test_a_wait_that_finds_its_record_goes_on_after_it(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "ready 1", "between", "ready 2", "after")
    run = ["tail", "--cursor-file", str(cursors)]
    until = ["--until-match", "message=ready 1", "--timeout", "60s"]
    assert printed(daemon, *run, *until) == ["ready 1"]
    assert cursors.read_text() == "app:1\n"
    assert printed(daemon, *run) == ["between", "ready 2", "after"]


def test_a_closed_pipe_moves_the_cursor_over_no_record_that_nobody_could_read(
    daemon: Daemon, cursors: Path
) -> None:
    count, size = 2000, 1000
    send(daemon, "app", *(f"{number:0{size}}" for number in range(count)))
    could_be_read = (65536 + io.DEFAULT_BUFFER_SIZE) // size  # a pipe's capacity: pipe(7)
    at = 0
    for _ in range(2):
        with subprocess.Popen(
            [*LOGENGINE, "cat", "app", "--cursor-file", str(cursors), "--format", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
        ) as reading:
            assert reading.stdout is not None
            assert reading.stderr is not None
            assert json.loads(reading.stdout.readline())["_seq"] == at + 1
            reading.stdout.close()
            assert (reading.wait(PATIENCE_S), reading.stderr.read()) == (0, b"")
        before, at = at, int(cursors.read_text()[4:]) if cursors.exists() else 0
        assert at <= before + could_be_read
    assert len(printed(daemon, "cat", "app", "--cursor-file", str(cursors))) == count - at


def test_data_that_is_not_the_same_is_read_from_its_start(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "one")
    cursors.write_text("app:7\n")
    done = daemon.cli("cat", "app", "--cursor-file", str(cursors), "--format", "json")
    assert b"its data is not the same" in done.stderr
    assert done.stdout.count(b"\n") == 1
    assert cursors.read_text() == "app:1\n"


@pytest.mark.parametrize("command", ["cat", "tail"])
def test_a_file_that_cannot_hold_cursors_is_an_error_before_anything_is_printed(
    daemon: Daemon, cursors: Path, root: Path, command: str
) -> None:
    send(daemon, "app", "one")
    cursors.write_text("no cursor\n")
    for path in (cursors, Path(os.devnull), root / "absent" / "cursors"):
        done = subprocess.run(
            [*LOGENGINE, command, "--cursor-file", str(path)],
            capture_output=True,
            check=False,
            env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
        )
        assert done.returncode in (1, 2)
        assert done.stdout == b""
        assert os.fsencode(path) in done.stderr
        assert b"Traceback" not in done.stderr
    assert cursors.read_text() == "no cursor\n"


def test_an_empty_file_has_no_cursors_yet(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "one")
    cursors.touch()
    assert printed(daemon, "cat", "--cursor-file", str(cursors)) == ["one"]
    done = daemon.cli("cat", "--after", "app:1", "--cursor-file", str(cursors), status=2)
    assert b"--after and --cursor-file" in done.stderr


def test_people_see_a_line_where_records_were_removed(daemon: Daemon, cursors: Path) -> None:
    send(daemon, "app", "1", "2", "3")
    daemon.stop()
    with ThreadPoolExecutor(1) as executor:
        store = Store(daemon.data, executor, CommitConfig(rewrite_limit=1))
        store.open()
        planned = {"app": store.plan("app", addition("p", 4, 5))}
        assert not asyncio.run(store.commit(planned))
        store.close()
    removed, kept = list_segments(daemon.data / "app")
    assert (removed, kept) == (1, 4)
    (daemon.data / "app" / segment_name(removed)).unlink()
    cursors.write_text("app:1\n")
    done = daemon.cli("cat", "app", "--cursor-file", str(cursors), "--format", "pretty")
    marker = "--- app: 2 records, 2 to 3: removed before they were read ---"
    assert done.stdout.decode().splitlines()[0] == marker
    assert done.stdout.decode().count("---\n") == 1
