"""`logengine count`, `fields` and `patterns` as they are typed."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reading.streams import damage, line, write_stream

LEVELS = ["info", "info", "WARN", "error", "info"]


def run(
    data: Path, *arguments: str, status: int = 0, **environ: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "logengine", *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"TZ": "UTC", "COLUMNS": "70"} | environ,
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def data(tmp_path: Path) -> Path:
    records = [line(n, 10 * n, f',"level":"{level}"') for n, level in enumerate(LEVELS)]
    write_stream(tmp_path, "app", records[:2], records[2:])
    write_stream(tmp_path, "web", [line(n, n, ',"level":40,"tags":["a","b"]') for n in range(3)])
    return tmp_path


def test_all_records_are_counted_or_those_that_are_selected(data: Path) -> None:
    assert run(data, "count").stdout == "8\n"
    assert run(data, "count", "app").stdout == "5\n"
    assert run(data, "count", "--where", "level >= warning").stdout == "5\n"
    assert run(data, "count", "app", "--after", "app:3").stdout == "2\n"
    assert run(data, "count", "--until", "2026-11-23T20:00:02Z").stdout == "3\n"
    assert run(data, "count", "--grep", "nothing").stdout == "0\n"


def test_levels_are_counted_by_what_they_mean(data: Path) -> None:
    assert run(data, "count", "--by", "level").stdout == (
        "level    COUNT  SHARE\nwarning      4  50.0%\ninfo         3  37.5%\n"
        "error        1  12.5%\n"
    )


def test_json_and_csv_have_every_group(data: Path) -> None:
    arguments = ("count", "--by", "_stream", "--by", "tags[*]")
    objects = [
        json.loads(each) for each in run(data, *arguments, "--format", "json").stdout.splitlines()
    ]
    assert objects == [
        {"by": {"_stream": "app"}, "count": 5},
        {"by": {"_stream": "web", "tags[*]": "a"}, "count": 3},
        {"by": {"_stream": "web", "tags[*]": "b"}, "count": 3},
    ]
    rows = list(csv.reader(io.StringIO(run(data, *arguments, "--format", "csv").stdout)))
    assert rows == [
        ["_stream", "tags[*]", "count"],
        ["app", "", "5"],
        ["web", "a", "3"],
        ["web", "b", "3"],
    ]


def test_others_are_counted_together(data: Path) -> None:
    shown = run(data, "count", "--by", "level", "--top", "1", "-o", "json").stdout
    assert [json.loads(each) for each in shown.splitlines()] == [
        {"by": {"level": "warning"}, "count": 4},
        {"other": True, "count": 4},
    ]


def test_a_histogram_has_a_bar_for_each_bucket(data: Path) -> None:
    shown = run(data, "count", "app", "--every", "10s", "--by", "level", "--top", "2").stdout
    header, *rows = shown.splitlines()
    assert header.split() == ["TIME", "COUNT", "error", "█", "info", "▓", "other", "·"]
    assert [row.split()[1:6] for row in rows] == [
        ["20:00:00", "1", "0", "1", "0"],
        ["20:00:10", "1", "0", "1", "0"],
        ["20:00:20", "1", "0", "0", "1"],
        ["20:00:30", "1", "1", "0", "0"],
        ["20:00:40", "1", "0", "1", "0"],
    ]
    assert [set(row.split()[6]) for row in rows] == [{"▓"}, {"▓"}, {"·"}, {"█"}, {"▓"}]
    assert all(len(row) <= 70 for row in rows)


def test_empty_buckets_are_shown_and_many_as_one_row(data: Path) -> None:
    shown = run(data, "count", "app", "--every", "5s").stdout.splitlines()
    assert [row.split()[2] for row in shown[1:]] == ["1", "0", "1", "0", "1", "0", "1", "0", "1"]
    shown = run(data, "count", "app", "--every", "1s").stdout.splitlines()
    assert [row.split()[0] for row in shown[1:]] == ["2026-11-23", "…"] * 4 + ["2026-11-23"]


def test_days_are_those_of_the_local_clock(tmp_path: Path) -> None:
    moments = ["2026-10-25T21:59:59", "2026-10-25T22:30:00", "2026-10-25T23:00:00"]
    write_stream(tmp_path, "app", [f'{{"_ts":"{each}.000000Z"}}'.encode() for each in moments])
    arguments = ("count", "--every", "1d", "--format", "json")
    shown = run(tmp_path, *arguments, TZ="Europe/Berlin").stdout.splitlines()
    assert [json.loads(each) for each in shown] == [
        {"time": "2026-10-24T22:00:00.000000Z", "count": 2},
        {"time": "2026-10-25T23:00:00.000000Z", "count": 1},
    ]


def test_names_and_values_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    hostile = r'"\u001b[2J\u009b31m\u202e\n"'
    write_stream(tmp_path, "app", [line(1, more=f',{hostile}:1,"v":{hostile}')])
    for form in ("table", "json"):
        for arguments in (("--by", "v"), ("--by", hostile), ("--by", "v", "--every", "1m")):
            shown = run(tmp_path, "count", *arguments, "--format", form).stdout
            assert not set(shown) & {"\x1b", "\x9b"}
            assert form == "json" or "\u202e" not in shown


def test_damage_is_reported_and_the_rest_is_counted(data: Path) -> None:
    damage(data, "app", 3)
    done = run(data, "count", "app", status=1)
    assert done.stdout == "2\n"
    assert done.stderr.startswith("logengine: app: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "a b"),
        ("--by", "a[*]", "--by", "b[*]"),
        ("--top", "3"),
        ("--every", "0s"),
        ("--every", "9" * 25),
        ("--every", "9" * 400),
    ],
)
def test_a_mistake_is_one_of_usage(data: Path, arguments: tuple[str, ...]) -> None:
    done = run(data, "count", *arguments, status=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_fields_are_listed_with_types_and_examples(data: Path) -> None:
    assert run(data, "fields", "--where", "has level", COLUMNS="80").stdout == (
        "FIELD    RECORDS   SHARE  TYPE                         EXAMPLES\n"
        "_ts            8  100.0%  string                       2026-11-23T20:00:00.000…\n"
        "level          8  100.0%  string 62.5%, integer 37.5%  info, WARN, error\n"
        "n              8  100.0%  integer                      0, 1, 2\n"
        'tags           3   37.5%  array                        ["a","b"]\n'
        "tags[*]        3   37.5%  string                       a, b\n"
    )
    shown = run(data, "fields", "web", "--format", "json").stdout.splitlines()
    assert json.loads(shown[-1]) == {
        "field": "tags[*]",
        "records": 3,
        "types": {"string": 6},
        "examples": ["a", "b"],
    }
    shown = run(data, "fields", "web", "--format", "csv").stdout.splitlines()
    assert shown[:3] == [
        "field,records,types,example",
        "_ts,3,string,2026-11-23T20:00:00.000000Z",
        "level,3,integer,40",
    ]


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    texts = ["order 7 placed", "disk full", "order 8 placed", "order 9 placed", "done"]
    write_stream(
        tmp_path, "app", [line(n, more=f',"event":"{text}"') for n, text in enumerate(texts, 1)]
    )
    return tmp_path


def test_similar_messages_are_one_pattern(messages: Path) -> None:
    assert run(messages, "patterns", "--top", "1").stdout == (
        "COUNT  SHARE  PATTERN\n    3  60.0%  order <*> placed\n    2  40.0%  (other)\n"
    )
    shown = run(messages, "patterns", "--where", "n < 5", "--format", "json").stdout.splitlines()
    assert [json.loads(each) for each in shown] == [
        {
            "pattern": "order <*> placed",
            "count": 3,
            "first": "2026-11-23T20:00:01.000000Z",
            "last": "2026-11-23T20:00:04.000000Z",
            "example": "order 7 placed",
        },
        {
            "pattern": "disk full",
            "count": 1,
            "first": "2026-11-23T20:00:02.000000Z",
            "last": "2026-11-23T20:00:02.000000Z",
            "example": "disk full",
        },
    ]
    shown = run(messages, "patterns", "--top", "1", "--format", "csv").stdout.splitlines()
    assert shown[0] == "count,first,last,pattern"
    assert shown[-1] == "2,,,(other)"


def test_fields_and_patterns_cannot_act_on_a_terminal_either(tmp_path: Path) -> None:
    hostile = r'"\u001b[2J\u009b31m\u202e\ud800"'
    write_stream(tmp_path, "app", [line(1, more=f',{hostile}:1,"event":{hostile}')])
    for command in ("fields", "patterns"):
        for form in ("table", "json"):
            shown = run(tmp_path, command, "--format", form).stdout
            assert not set(shown) & {"\x1b", "\x9b"}
            assert form == "json" or "\u202e" not in shown
        run(tmp_path, command, "--format", "csv")


@pytest.mark.parametrize("command", ["count", "fields", "patterns"])
def test_an_empty_stream_is_no_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "app").mkdir()
    for arguments in ((), ("--format", "json"), ("--format", "csv")):
        run(tmp_path, command, *arguments)
    run(tmp_path, "count", "--every", "1m", "--by", "level")
    assert run(tmp_path, "count", "nothing", status=1).stderr.startswith("logengine: ")
