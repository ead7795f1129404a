"""`logengine rate` counts what arrives while it runs, once, and ends as it is told."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.daemon import PATIENCE_S, Daemon, eventually


def start(daemon: Daemon, path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with path.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "logengine", "rate", *arguments],
            stdout=output,
            env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
        )


def test_each_record_is_counted_once_with_its_values_and_bytes(daemon: Daemon, root: Path) -> None:
    daemon.cli("send", "-s", "app", stdin=b"before\n" * 50)
    path = root / "rows"
    rate = start(
        daemon, path, "app", "new", "--format", "json", "--every", "100ms", "--by", "level"
    )

    def rows() -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in path.read_text().splitlines(keepends=True) if "\n" in line
        ]

    try:
        eventually(rows, "the first row")
        daemon.cli("send", "-s", "app", stdin=b'{"level":"WARN"}\n' * 300 + b"plain\n" * 20)
        daemon.cli("send", "-s", "other", stdin=b"not counted\n")
        daemon.cli("send", "-s", "new", stdin=b'{"level":"error"}\n')
        eventually(lambda: sum(each["records"] for each in rows()) >= 321, "all records")
    finally:
        rate.send_signal(signal.SIGINT)
    assert rate.wait(PATIENCE_S) == 130
    counted: dict[str, int] = {}
    for row in rows():
        assert sum(row["by"].values()) == row["records"]
        assert bool(row["bytes"]) == bool(row["records"])
        for level, count in row["by"].items():
            counted[level] = counted.get(level, 0) + count
    assert counted == {"warning": 300, "-": 20, "error": 1}


def test_what_came_before_the_end_is_in_a_last_row(daemon: Daemon, root: Path) -> None:
    path = root / "rows"

    def rows() -> list[dict[str, Any]]:
        """The rows of one run. None if the machine was too busy for a record to come in time."""
        rate = start(daemon, path, "--format", "json", "--every", "1h", "--timeout", "2s")
        try:
            while rate.poll() is None:
                daemon.cli("send", "-s", "app", stdin=b"one\n")
        finally:
            rate.kill()
            rate.wait()
        return [json.loads(line) for line in path.read_text().splitlines()]

    (row,) = eventually(rows, "a record in time", patience_s=120)
    assert 0 < row["records"] <= len(daemon.records("app"))


def test_a_reader_that_leaves_ends_it(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"one\n")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m logengine rate --every 100ms | head -n 2"],
        env=os.environ | {"LOGENGINE_DATA": str(daemon.data)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(b"TIME      RECORDS/S     BYTES/S\n")
    assert done.stderr == b""
