"""How records look and in which order: `cat` and `tail` as people call them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, eventually
from tests.reading.streams import damage, line, write_stream
from tests.terminal import Terminal, environ_of_a_person

LOGENGINE = [sys.executable, "-m", "logengine"]
ROW = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ")


def run(
    data: Path, *arguments: str, status: int = 0, **environ: Any
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*LOGENGINE, *arguments, "--data", str(data)],
        capture_output=True,
        check=False,
        timeout=60,
        env={name: each for name, each in os.environ.items() if "COLOR" not in name}
        | {"TERM": "xterm"}
        | environ,
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    assert b"Traceback" not in done.stderr
    return done


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty records of `app` in several segments, and three of `web`."""
    data = tmp_path / "data"
    levels = ("debug", "info", "warning", "error")
    lines = [line(n, n, f',"level":"{levels[n % 4]}","event":"event {n}"') for n in range(1, 21)]
    write_stream(data, "app", lines[:7], lines[7:12], lines[12:])
    write_stream(data, "web", [line(n, 5 * n, ',"event":"from the web"') for n in (1, 2, 3)])
    return data


def numbers(shown: bytes) -> list[int]:
    return [json.loads(each)["_seq"] for each in shown.splitlines()]


def test_each_form_prints_every_record(data: Path) -> None:
    for form in ("pretty", "short", "json", "raw", "logfmt"):
        printed = run(data, "cat", "app", "-o", form).stdout
        assert len(printed.splitlines()) == 20
        assert b"event 7" in printed
        assert b"\x1b" not in printed
    rows = list(csv.reader(run(data, "cat", "app", "-o", "csv").stdout.decode().splitlines()))
    assert len(rows) == 21
    assert rows[7][6] == "event 7"
    printed = run(data, "cat", "app", "--template", "{seq} {level:<6}{n}", "-n", "2").stdout
    assert printed == b"1 INFO  1\n2 WARN  2\n"
    assert run(data, "cat", "none*", "-o", "csv", status=1).stdout == b""
    only = run(data, "cat", "app", "--since", "1h", "-o", "csv", "--fields", "n,event").stdout
    assert only == b"n,event\n"


def test_fields_are_chosen_in_every_form_but_the_stored_one(data: Path) -> None:
    shown = run(data, "tail", "app", "-n", "1", "-o", "json", "--fields", "n,level").stdout
    assert shown == b'{"_stream":"app","_seq":20,"n":20,"level":"debug"}\n'
    shown = run(data, "tail", "app", "-n", "1", "-o", "logfmt", "--fields", "n,_seq").stdout
    assert shown == b"n=20 _seq=20\n"
    shown = run(data, "tail", "app", "-n", "1", "-o", "pretty", "--hide", "n").stdout
    assert shown.endswith(b"DEBUG app: event 20\n")


def test_colours_are_as_asked_for(data: Path) -> None:
    def is_coloured(*arguments: str, **environ: Any) -> bool:
        printed = run(data, "tail", "-n", "1", "-o", "pretty", *arguments, **environ).stdout
        return b"\x1b[" in printed

    assert not is_coloured()
    assert is_coloured("--color", "always")
    assert is_coloured("--color", "always", NO_COLOR="1", TERM="dumb")
    assert is_coloured(FORCE_COLOR="1")
    assert not is_coloured(FORCE_COLOR="0")
    assert not is_coloured(FORCE_COLOR="1", NO_COLOR="1")
    assert not is_coloured("--color", "never", FORCE_COLOR="1")


def test_what_grep_found_is_highlighted(data: Path) -> None:
    shown = run(data, "cat", "--grep", "WEB", "-i", "-o", "pretty", "--color", "always").stdout
    assert shown.count(b"from the \x1b[7mweb\x1b[27m") == 3
    shown = run(data, "cat", "--grep", "web", "-v", "-o", "pretty", "--color", "always").stdout
    assert b"\x1b[7m" not in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cat", "app", "-n", "3"], [1, 2, 3]),
        (["cat", "app", "-n", "0"], []),
        (["cat", "app", "-n", "9", "--after", "app:18"], [19, 20]),
        (["cat", "app", "--reverse", "-n", "3"], [20, 19, 18]),
        (["cat", "app", "-r", "--where", "n in (2, 9)"], [9, 2]),
        (["tail", "app", "-r", "-n", "3"], [20, 19, 18]),
        (["cat", "app", "--grep", "event 9", "-C", "1"], [8, 9, 10]),
        (["cat", "app", "--grep", "event 9", "-A", "2"], [9, 10, 11]),
        (["cat", "app", "--grep", "event 9", "-B", "2", "-A", "0"], [7, 8, 9]),
        (["cat", "app", "--grep", "event 1", "-n", "1", "-C", "1"], [1, 2]),
        (["tail", "app", "--where", "level == error", "-n", "1", "-C", "1"], [18, 19, 20]),
        (["cat", "a*", "-n", "1"], [1]),
        (["tail", "[v-x]*"], [1, 2, 3]),
        (["tail", "app", "--since", "2026-11-23T20:00:19Z"], [19, 20]),
        (["tail", "app", "--until", "2026-11-23T20:00:03Z"], [1, 2]),
        (["tail", "app", "-n", "1", "--until", "2026-11-23T20:00:03Z"], [2]),
        (["tail", "app", "--since", "-1h30m"], []),
        (["tail", "app", "--since", "@1795464018.5"], [19, 20]),
    ],
)
def test_records_come_in_the_order_and_number_asked_for(
    data: Path, arguments: list[str], expected: list[int]
) -> None:
    assert numbers(run(data, *arguments, "-o", "json").stdout) == expected


def test_groups_are_separated_for_people_and_not_for_programs(data: Path) -> None:
    arguments = ("cat", "app", "--grep", "event (3|9)", "-C", "1")
    shown = run(data, *arguments, "-o", "short").stdout.splitlines()
    assert [each[-7:].strip() for each in shown] == [
        *(b"event 2", b"event 3", b"event 4", b"--", b"event 8", b"event 9", b"vent 10"),
    ]
    assert numbers(run(data, *arguments, "-o", "json").stdout) == [2, 3, 4, 8, 9, 10]


def test_times_are_local_or_in_utc_or_ages_or_deltas(data: Path) -> None:
    last = ("tail", "app", "-n", "2", "-o", "pretty")
    assert b"2026-11-23 15:00:20.000 DEBUG" in run(data, *last, TZ="EST5").stdout
    assert b"2026-11-23 20:00:20.000Z DEBUG" in run(data, *last, "--utc", TZ="EST5").stdout
    assert re.search(rb" ago DEBUG|in .* DEBUG", run(data, *last, "--relative").stdout)
    assert b"15:00:20.000    +1.000000s DEBUG" in run(data, *last, "--delta", TZ="EST5").stdout
    since = ("cat", "app", "-o", "json", "--since", "2026-11-23 15:00:19")
    assert numbers(run(data, *since, TZ="EST5").stdout) == [19, 20]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cat", "-o", "raw", "--fields", "a"], "-o raw"),
        (["cat", "-o", "template"], "needs --template"),
        (["cat", "-o", "json", "--template", "{a}"], "and so does -o json"),
        (["cat", "--template", "{a"], "belongs to no field"),
        (["cat", "--template", "{a:>1001}"], "width"),
        (["cat", "--template", "{a}", "--fields", "b"], "omit --fields"),
        (["cat", "-o", "json", "--utc"], "--utc, --relative and --delta are for"),
        (["cat", "-o", "pretty", "--relative", "--delta"], "choose one"),
        (["cat", "--color", "red"], "red"),
        (["cat", "-C", "1"], "select some"),
        (["tail", "-C", "1"], "select some"),
        (["tail", "-f", "-C", "1"], "select some"),
        (["cat", "-C", "99999999999", "--grep", "x"], "99999999999"),
        (["cat", "-n", "-1"], "-1"),
        (["cat", "-r", "-C", "1", "--grep", "x"], "omit --reverse"),
        (["tail", "-f", "--reverse"], "-f"),
        (["tail", "-f", "--until", "now"], "--until"),
        (["tail", "--since", "soon"], "is not a time"),
        (["cat", "a/*"], "cannot be a stream"),
        (["erase", "a*", "--where", "n=1"], "cannot be a stream"),
    ],
)
def test_a_mistake_is_a_usage_error(data: Path, arguments: list[str], said: str) -> None:
    done = run(data, *arguments, status=2)
    assert said in done.stderr.decode()
    assert done.stdout == b""


def test_absurd_numbers_are_no_traceback(data: Path) -> None:
    huge = "9" * 30
    assert numbers(run(data, "cat", "app", "-n", huge, "-o", "json").stdout)[-1] == 20
    assert len(run(data, "tail", "app", "-n", huge, "-o", "json").stdout.splitlines()) == 20
    assert run(data, "cat", "app", "-o", "pretty", "--fields", f"list.{huge},{'a.' * 500}b").stdout


@pytest.mark.parametrize("form", ["pretty", "csv", "json", "raw"])
def test_a_reader_that_leaves_ends_the_output_quietly(data: Path, form: str) -> None:
    many = [line(n % 60, n % 60) for n in range(50_000)]
    write_stream(data, "many", sorted(many))
    command = f"{sys.executable} -m logengine cat many -o {form} --data {data} | head -n 1"
    script = f"set -o pipefail; {command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


def on_terminal(data: Path, *arguments: str, columns: int = 80, **environ: str) -> Terminal:
    command = [*LOGENGINE, *arguments, "--data", str(data)]
    return Terminal(command, environ_of_a_person(**environ), columns=columns)


def test_on_a_terminal_the_pager_shows_what_would_be_printed(data: Path, tmp_path: Path) -> None:
    paged = tmp_path / "paged"
    terminal = on_terminal(data, "cat", "app", PAGER=f"tee {paged} > /dev/null; echo done")
    assert terminal.read_to_end().strip() == b"done"
    assert terminal.process.returncode == 0
    rows = paged.read_bytes().splitlines()
    assert len(rows) == 20
    assert b"\x1b[" in rows[0]


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--no-pager"], {"PAGER": "echo paged"}),
        ([], {"PAGER": ""}),
        ([], {"PAGER": "cat"}),
        ([], {"PAGER": "echo paged", "TERM": "dumb"}),
    ],
)
def test_there_are_terminals_without_a_pager(
    data: Path, arguments: list[str], environ: dict[str, Any]
) -> None:
    shown = on_terminal(data, "cat", "app", *arguments, **environ).read_to_end()
    assert b"paged" not in shown
    assert len(shown.splitlines()) == 20


def test_a_pager_that_cannot_be_run_is_an_error(data: Path) -> None:
    terminal = on_terminal(data, "cat", "app", PAGER="no-such-pager")
    assert b"the pager 'no-such-pager' cannot be run" in terminal.read_to_end()
    assert terminal.process.returncode == 1


def test_leaving_the_pager_ends_the_command_quietly(data: Path) -> None:
    many = [line(n % 60, n % 60) for n in range(50_000)]
    write_stream(data, "many", sorted(many))
    terminal = on_terminal(data, "cat", "many", PAGER="head -n 1")
    assert len(terminal.read_to_end().splitlines()) == 1
    assert terminal.process.returncode == 0


def test_damage_is_reported_when_the_pager_is_left(data: Path) -> None:
    damage(data, "app", 8)
    terminal = on_terminal(data, "cat", "app", "-o", "short", PAGER="cat; echo left")
    shown = terminal.read_to_end().split(b"left")
    assert len(shown) == 2
    assert shown[0].count(b"event") == 15
    assert b"00000000000000000008.ndjson is damaged" in shown[1]
    assert terminal.process.returncode == 1


def test_an_interrupt_leaves_the_pager_to_its_user(data: Path, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    pager = f"trap '' INT; touch {begun}; sed -n '$='; while [ ! -e {ended} ]; do read -t 1 x; done"
    terminal = on_terminal(data, "cat", "app", PAGER=f"bash -c {json.dumps(pager)}")
    eventually(begun.exists, "the pager")
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.process.poll() is None
    ended.touch()
    terminal.read_to_end()
    assert terminal.process.returncode in (0, 130)
    assert b"Traceback" not in terminal.shown


def test_rows_fit_a_narrow_terminal(data: Path) -> None:
    shown = on_terminal(data, "cat", "app", "--no-pager", columns=30).read_to_end().decode()
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert max(len(each) for each in plain.splitlines()) <= 30
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} INFO  app: event\r\n    1  n=1", plain)


def test_following_is_not_paged_and_ends_by_an_interrupt(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    follow = subprocess.Popen(
        [
            *LOGENGINE,
            "tail",
            "-f",
            "ap*",
            "--since",
            "1h",
            "-o",
            "short",
            "--data",
            str(daemon.data),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert follow.stdout is not None
    assert follow.stdout.readline().endswith(b" one\n")
    daemon.cli("send", "-s", "apple", stdin=b"two\n")
    assert follow.stdout.readline().endswith(b" two\n")
    follow.send_signal(signal.SIGINT)
    _, said = follow.communicate(timeout=60)
    assert (follow.returncode, said.strip()) == (130, b"")
