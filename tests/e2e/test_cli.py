"""The command line, as people use it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from logengine.cli import cli
from tests.compressed import compress_file
from tests.daemon import PATIENCE_S, Daemon, eventually

LOGENGINE = [sys.executable, "-m", "logengine"]


def test_lines_come_back_in_each_format(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"level":"info","event":"hi","user":"ann"}\nplain\n')
    (stored,) = (daemon.data / "app").glob("*.ndjson")
    lines = stored.read_bytes().splitlines()[1:]
    assert daemon.cli("cat", "app", "--format", "raw").stdout.splitlines() == lines
    as_json = [json.loads(line) for line in daemon.cli("cat").stdout.splitlines()]
    assert [(r["_stream"], r["_seq"]) for r in as_json] == [("app", 1), ("app", 2)]
    assert list(as_json[0])[:3] == ["_stream", "_seq", "_ts"]
    pretty = daemon.cli("tail", "--format", "pretty").stdout.decode().splitlines()
    assert "hi" in pretty[0]
    assert "user=ann" in pretty[0]
    assert "plain" in pretty[1]


def test_pretty_lets_no_control_character_reach_the_terminal(daemon: Daemon) -> None:
    evil = "\x1b]0;owned\x07\x9b31m\u202e\x7f\r"
    record = {"event": evil + "\nsecond", "level": evil, evil: evil, "list": [evil]}
    daemon.cli("send", stdin=json.dumps(record).encode() + b"\n" + b"text \x1b[31m\n")
    shown = daemon.cli("tail", "--format", "pretty").stdout.decode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert "\\x1b]0;owned" in shown


def test_pretty_is_the_default_on_a_terminal_and_coloured(daemon: Daemon) -> None:
    daemon.cli("send", stdin=b'{"event":"hi"}\n')
    master, slave = pty.openpty()
    subprocess.run(
        [*LOGENGINE, "tail", "--data", str(daemon.data)],
        stdout=slave,
        check=True,
        timeout=PATIENCE_S,
    )
    os.close(slave)
    shown = os.read(master, 65536)
    assert b"\x1b[" in shown
    assert b"hi" in shown
    os.close(master)


def test_send_resumes_where_it_was_and_says_so(daemon: Daemon) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(1000))
    daemon.cli("send", "--resume", "import", stdin=lines[: len(lines) // 2])
    sent = len(daemon.records())
    # The half line at the end of the first input was stored as it was, and is stored whole now.
    done = daemon.cli("send", "--resume", "import", stdin=lines)
    assert f"skipped {sent} lines".encode() in done.stderr
    assert b"stored again, whole" in done.stderr
    messages = [value["message"] for value in daemon.values()]
    del messages[sent - 1]
    assert messages == lines.decode().splitlines()


def test_send_takes_several_files_and_ends_their_last_lines(daemon: Daemon, root: Path) -> None:
    (root / "one").write_bytes(b"a\nb")
    (root / "two").write_bytes(b"c\n\nd")
    daemon.cli("send", str(root / "one"), str(root / "two"))
    assert [value["message"] for value in daemon.values()] == ["a", "b", "c", "d"]


def test_send_names_a_line_that_is_refused_and_fails(daemon: Daemon) -> None:
    done = daemon.cli("send", stdin=b"one\n" + b"x" * 2**20 + b"yy\nthree", status=1)
    assert b"line 2 is longer" in done.stderr
    assert [value["message"] for value in daemon.values()] == ["one", "three"]


def test_send_waits_for_a_daemon_that_is_away(root: Path) -> None:
    daemon = Daemon(root)
    sending = subprocess.Popen(
        [*LOGENGINE, "send", "--socket", str(daemon.socket)], stdin=subprocess.PIPE
    )
    assert sending.stdin is not None
    sending.stdin.write(b"early\n")
    sending.stdin.close()
    daemon.start()
    assert sending.wait(PATIENCE_S) == 0
    assert daemon.values() == [{"message": "early"}]
    daemon.stop()


def test_send_gives_up_after_its_timeout(root: Path) -> None:
    done = Daemon(root).cli("send", "--timeout", "3s", stdin=b"x\n", status=1)
    assert b"no daemon at" in done.stderr
    assert b"Traceback" not in done.stderr


def test_follow_prints_what_comes_in_streams_old_and_new(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "old", stdin=b"before 1\nbefore 2\n")
    with subprocess.Popen(
        [*LOGENGINE, "tail", "-f", "-n", "1", "--data", str(daemon.data), "--format", "raw"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None

        def next_message() -> str:
            assert tail.stdout is not None
            return str(json.loads(tail.stdout.readline())["message"])

        assert next_message() == "before 2"
        daemon.cli("send", "-s", "old", stdin=b"after\n")
        assert next_message() == "after"
        daemon.cli("send", "-s", "new", stdin=b"new 1\nnew 2\n")
        assert [next_message(), next_message()] == ["new 1", "new 2"]
        tail.send_signal(signal.SIGINT)
        assert tail.wait(PATIENCE_S) == 130
        assert tail.stderr.read().strip() == b""


def test_follow_waits_for_a_data_directory_that_is_not_there(root: Path) -> None:
    daemon = Daemon(root)
    with subprocess.Popen(
        [*LOGENGINE, "tail", "-f", "--data", str(daemon.data)], stdout=subprocess.PIPE
    ) as tail:
        assert tail.stdout is not None
        daemon.start()
        daemon.cli("send", stdin=b"first\n")
        assert json.loads(tail.stdout.readline())["message"] == "first"
        tail.terminate()
    daemon.stop()


def test_head_ends_cat_quietly(daemon: Daemon) -> None:
    daemon.cli("send", stdin=b"x\n" * 100000)
    done = subprocess.run(
        f"{sys.executable} -m logengine cat --data {daemon.data} | head -n 1",
        shell=True,
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


def test_cat_goes_on_behind_a_cursor(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"1\n2\n3\n")
    shown = daemon.cli("cat", "--after", "app:1").stdout.splitlines()
    assert [json.loads(line)["message"] for line in shown] == ["2", "3"]
    assert daemon.cli("cat", "--after", "app:3").stdout == b""


def test_times_choose_records(daemon: Daemon) -> None:
    daemon.cli("send", stdin=b"old\n")
    (old,) = daemon.records()
    daemon.cli("send", stdin=b"new\n")
    since_old = daemon.cli("cat", "--since", old["_ts"]).stdout
    assert len(since_old.splitlines()) == 2
    (line,) = daemon.cli("cat", "--until", daemon.records()[1]["_ts"]).stdout.splitlines()
    assert json.loads(line)["message"] == "old"
    assert daemon.cli("cat", "--since", "10m").stdout == since_old
    assert daemon.cli("cat", "--until", "yesterday").stdout == b""


RECORDS = [
    b'{"level":"error","event":"time out","user":{"name":"ann"},"ms":5}',
    b'{"level":"info","event":"Time out","user":{"name":"bob"},"ms":5.0}',
    b'{"level":"error","event":"a.b","user":{"name":"bob"},"ms":50}',
]


@pytest.fixture(scope="module")
def chosen_from() -> Iterator[Daemon]:
    """A stopped daemon with a stream of `RECORDS`."""
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        daemon = Daemon(Path(name)).start()
        try:
            daemon.cli("send", "-s", "app", stdin=b"".join(each + b"\n" for each in RECORDS))
            assert daemon.stop() == 0
        finally:
            daemon.close()
        yield daemon


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--grep", "time.?out"], [0]),
        (["--grep", "TIME", "-i"], [0, 1]),
        (["--grep", "time", "-iv"], [2]),
        (["--grep", "a.b", "-F"], [2]),
        (["--grep", '"}$'], []),
        (["--where", "level=error"], [0, 2]),
        (["--where", "level=error", "--where", "user.name=bob"], [2]),
        (["--where", "ms=5", "--grep", "a"], [0]),
        (["--where", f"_uid={os.getuid()}"], [0, 1, 2]),
        (["--where", "level=error", "--grep", "ann", "-v"], [2]),
        (["--grep", "error", "--grep", "time"], [0]),
        (["--grep", "ann", "--grep", "Time", "-v"], [2]),
        (["--where", "level >= warning"], [0, 2]),
        (["--where", "level>=warn"], [0, 2]),
        (["--where", "level != error"], [1]),
        (["--where", "event ~ '(?i)time' and not user.name == ann"], [1]),
        (["--where", "ms == 5"], [0, 1]),
        (["--where", "ms in (50, 51) or user.name == ann"], [0, 2]),
        (["--where", "has ms and not has user.name"], []),
        (["--where", "_ts > 2026-01-01", "--where", f"_uid == {os.getuid()}"], [0, 1, 2]),
    ],
)
def test_records_are_chosen_by_pattern_and_field(
    chosen_from: Daemon, arguments: list[str], chosen: list[int]
) -> None:
    for command in (["cat"], ["tail"], ["cat", "app", "--since", "10m"]):
        shown = chosen_from.cli(*command, *arguments).stdout.splitlines()
        assert [json.loads(line)["_seq"] - 1 for line in shown] == chosen
    if chosen:
        (last,) = chosen_from.cli("tail", "-n", "1", *arguments).stdout.splitlines()
        assert json.loads(last)["_seq"] - 1 == chosen[-1]


def test_follow_prints_only_what_is_chosen(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"a 1\nb 1\nb 2\n")
    with subprocess.Popen(
        [*LOGENGINE, "tail", "-f", "-n", "1", "--grep", '"a ', "--data", str(daemon.data)],
        stdout=subprocess.PIPE,
    ) as tail:
        assert tail.stdout is not None
        for expected in ("a 1", "a 2", "a 3"):
            assert json.loads(tail.stdout.readline())["message"] == expected
            daemon.cli("send", "-s", "app", stdin=b"b 3\n")
            daemon.cli("send", "-s", "app", stdin=b"a %d\nb 4\n" % (int(expected[2:]) + 1))
        tail.terminate()


def test_compressed_segments_are_read_by_every_command(daemon: Daemon) -> None:
    daemon.config.write_text("[commit]\nrewrite_limit = 200\n")
    daemon.stop()
    daemon.start()
    for number in range(6):
        daemon.cli("send", "-s", "app", stdin=b'{"n":%d,"x":"%s"}\n' % (number, b"x" * 60))
    before = {
        command: daemon.cli(*command.split()).stdout
        for command in ("cat", "cat --format raw", "tail -n 4", "cat --where n=1", "verify")
    }
    paths = daemon.segments("app")
    assert len(paths) == 3
    for path in paths[:2]:
        compress_file(path)
    assert {command: daemon.cli(*command.split()).stdout for command in before} == before
    (told,) = map(json.loads, daemon.cli("ls", "--json").stdout.splitlines())
    assert (told["records"], told["segments"]) == (6, 3)
    assert told["bytes"] == sum(path.stat().st_size for path in daemon.segments("app"))


def test_several_streams_are_merged_by_time(daemon: Daemon) -> None:
    for number in range(6):
        daemon.cli("send", "-s", "ab"[number % 2], stdin=b"%d\n" % number)
    for command in (["cat"], ["tail"], ["cat", "b", "a"]):
        shown = daemon.cli(*command).stdout.splitlines()
        assert [json.loads(line)["message"] for line in shown] == list("012345")
    last = daemon.cli("tail", "-n", "2").stdout.splitlines()
    assert [json.loads(line)["message"] for line in last] == ["4", "5"]


def test_ls_tells_streams_and_sizes(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"1\n2\n3\n")
    (line,) = daemon.cli("ls", "--json").stdout.splitlines()
    told = json.loads(line)
    assert (told["stream"], told["records"], told["segments"]) == ("app", 3, 1)
    (path,) = daemon.segments("app")
    assert told["bytes"] == path.stat().st_size
    header, row = daemon.cli("ls").stdout.decode().splitlines()
    assert header.split() == ["STREAM", "RECORDS", "BYTES", "SEGMENTS", "FIRST", "LAST"]
    assert row.split()[:2] == ["app", "3"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["cat", "nope"], 1, "no stream 'nope'"),
        (["cat", "../etc"], 2, "cannot be a stream"),
        (["cat", "--after", "app"], 2, "no cursor"),
        (["cat", "--since", "soon"], 2, "is not a time"),
        (["tail", "-n", "-1"], 2, "-1"),
        (["cat", "--grep", "("], 2, "not a regular expression"),
        (["tail", "-v"], 2, "--grep"),
        (["cat", "--where", "level"], 2, "expected an operator"),
        (["cat", "--where", "level >> 5"], 2, "\n  level >> 5\n        ^^\n"),
        (["tail", "--where", "message~=x"], 2, "write ~"),
        (["erase", "app", "--where", "user = "], 2, "expected a value after ="),
        (["export", "--where", "level >= wran"], 2, "'wran' is not a level"),
        (["cat", "--where", "_seq=5"], 2, "not a field of a record"),
        (["ls", "--data", "/nonexistent"], 1, "no data directory"),
        (["verify", "nope"], 1, "no stream 'nope'"),
        (["send", "-s", "UP"], 2, "is not a valid stream name"),
        (["send", "/nonexistent"], 2, "does not exist"),
        (["send", "--resume", "a\nb"], 2, "without control characters"),
        (["run", "--config", "/nonexistent"], 1, "/nonexistent: cannot be read"),
        (["config", "check", "/nonexistent"], 1, "/nonexistent: cannot be read"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_a_mistake_is_one_clear_line(
    daemon: Daemon, arguments: list[str], status: int, said: str
) -> None:
    done = daemon.cli(*arguments, status=status)
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert status == 2 or len(done.stderr.splitlines()) == 1


def test_every_command_has_help_with_examples(root: Path) -> None:
    listed = Daemon(root).cli("--help").stdout.decode()
    commands = re.findall(r"^  (\w+)  ", listed.split("Commands:")[1], re.MULTILINE)
    assert set(commands) == {
        "run",
        "web",
        "top",
        "rate",
        "completion",
        "send",
        "exec",
        "tail",
        "cat",
        "count",
        "fields",
        "patterns",
        "query",
        "ls",
        "status",
        "verify",
        "seals",
        "backup",
        "repair",
        "erase",
        "export",
        "import",
        "retain",
        "keygen",
        "config",
    }
    for command in commands:
        told = CliRunner().invoke(cli, [command, "--help"]).output
        assert command == "config" or "Examples:" in told


def test_stream_names_complete_in_the_shell(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "application", stdin=b"x\n")
    done = daemon.cli(
        "cat",
        _LOGENGINE_COMPLETE="bash_complete",
        COMP_WORDS="logengine cat app",
        COMP_CWORD="2",
    )
    assert b"application" in done.stdout


def test_send_killed_and_run_again_with_resume_stores_each_line_once(daemon: Daemon) -> None:
    lines = b"".join(b"%06d\n" % number for number in range(50000))
    path = daemon.data.parent / "input"
    path.write_bytes(lines)
    for _ in range(3):
        sending = subprocess.Popen(
            [*LOGENGINE, "send", "--socket", str(daemon.socket), "--resume", "r", str(path)]
        )
        before = len(daemon.records()) if (daemon.data / "default").exists() else 0
        eventually(
            lambda before=before, sending=sending: (
                sending.poll() is not None  # type: ignore[misc]
                or ((daemon.data / "default").exists() and len(daemon.records()) > before)
            )
        )
        sending.kill()
        sending.wait()
    daemon.cli("send", "--resume", "r", str(path))
    assert [value["message"] for value in daemon.values()] == lines.decode().split()
