"""`logengine count` as it is typed."""

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
    shown = run(data, "count", "--by", "level", "--top", "1", "--format", "json").stdout
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
    [("--by", "a b"), ("--by", "a[*]", "--by", "b[*]"), ("--top", "3"), ("--every", "0s")],
)
def test_a_mistake_is_one_of_usage(data: Path, arguments: tuple[str, ...]) -> None:
    done = run(data, "count", *arguments, status=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
