"""`--since`, `--until` and `--by` as they are typed: by the records' own times, or by arrival."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reading.streams import at, line, write_stream

# All arrive within a minute; each is of another hour, and the last says nothing.
HOURS = (9, 10, 11, 12)
MORNING = ["--since", "2026-11-22T10:00:00Z", "--until", "2026-11-22T12:00:00Z"]
ARRIVED = ["--since", at(1), "--until", at(3)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    times = [f',"time":"2026-11-22T{hour:02d}:30:00+00:00"' for hour in HOURS]
    write_stream(tmp_path, "app", [line(n, n, time) for n, time in enumerate([*times, ""], 1)])
    return tmp_path


def run(data: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "logengine", *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"TZ": "UTC"},
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def numbers(data: Path, *arguments: str) -> list[int]:
    return [json.loads(each)["n"] for each in run(data, *arguments).splitlines()]


@pytest.mark.parametrize("command", ["cat app", "tail app", "export app -o -"])
def test_a_range_is_by_own_times_unless_arrival_is_asked_for(data: Path, command: str) -> None:
    arguments = command.split()
    assert numbers(data, *arguments, *MORNING) == [2, 3]
    assert numbers(data, *arguments, *MORNING, "--by", "arrival") == []
    assert numbers(data, *arguments, *ARRIVED, "--by", "time") == []
    assert numbers(data, *arguments, *ARRIVED, "--by", "arrival") == [1, 2]
    assert numbers(data, *arguments, *ARRIVED, "--range-by", "arrival") == [1, 2]


def test_following_begins_at_an_own_time_or_at_an_arrival(data: Path) -> None:
    follow = ("tail", "-f", "app", "--timeout", "100ms", "--since")
    assert numbers(data, *follow, "2026-11-22T12:00:00Z") == [4, 5]
    assert numbers(data, *follow, "2026-11-22T12:00:00Z", "-n", "1") == [5]
    assert numbers(data, *follow, at(3), "--by", "arrival") == [3, 4, 5]


def test_counts_are_by_the_time_of_the_range(data: Path) -> None:
    assert run(data, "count", *MORNING) == "2\n"
    assert run(data, "count", *MORNING, "--range-by", "arrival") == "0\n"
    hourly = ("count", "--every", "1h", "--format", "csv")
    assert run(data, *hourly).splitlines() == [
        "time,count",
        *[f"2026-11-22T{hour:02d}:00:00.000000Z,1" for hour in HOURS],
        "2026-11-23T20:00:00.000000Z,1",
    ]
    assert run(data, *hourly, "--range-by", "arrival").splitlines() == [
        "time,count",
        "2026-11-23T20:00:00.000000Z,5",
    ]
    assert run(data, "count", "--by", "n", *MORNING, "--format", "csv").count("\n") == 3


def test_erase_is_by_arrival_unless_own_times_are_asked_for(data: Path) -> None:
    assert run(data, "erase", "app", *MORNING).endswith("erased 0 records\n")
    assert run(data, "erase", "app", *ARRIVED, "--dry-run").endswith("would erase 2 records\n")
    assert run(data, "erase", "app", *MORNING, "--by", "time").endswith("erased 2 records\n")
    left = [json.loads(each) for each in run(data, "cat", "app", "-o", "json").splitlines()]
    assert [each["_seq"] for each in left if "_erased" in each] == [2, 3]
    assert run(data, "cat", "app", *MORNING) == ""


def test_another_time_is_refused(data: Path) -> None:
    assert "'sent' is not one of" in run(data, "cat", "--by", "sent", status=2)
