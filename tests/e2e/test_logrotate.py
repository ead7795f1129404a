"""Files that logrotate itself rotates, in each of its modes."""

import contextlib
import itertools
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.daemon import Daemon, eventually

LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/sbin") or shutil.which("logrotate")
ROUNDS = 6
MODES = {
    "create": "create",
    "nocreate": "nocreate",
    "start": "create\nstart 5",
    "compress": "create\ncompress",
    "delaycompress": "create\ncompress\ndelaycompress",
    "dateext": "create\ndateext\ndateformat -%Y%m%d-%s",
    "dateext, extension": "create\ndateext\ndateformat -%Y%m%d-%s\nextension .log\ncompress",
    "copytruncate": "copytruncate",
    "copytruncate, compress": "copytruncate\ncompress",
    "copy": "copy",
    "olddir": "create\nolddir {logs}/old\ncreateolddir",
}
# What was moved to another directory while there was no daemon is not found.
NOT_FOUND_LATER = {"olddir"}


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")
@pytest.mark.parametrize("mode", MODES)
def test_each_line_is_stored_once_when_logrotate_rotates(root: Path, mode: str) -> None:
    logs = root / "logs"
    logs.mkdir(mode=0o755)
    log = logs / "app.log"
    rotation = root / "logrotate.conf"
    directives = MODES[mode].format(logs=logs)
    rotation.write_text(f"{log} {{\nrotate 20\nmissingok\n{directives}\n}}\n")
    numbers = itertools.count(1)
    written = 0
    daemon = Daemon(root, f"[[file]]\npath = '{logs}/*'\nstream = 'app'\nformat = 'lines'\n")

    def append(count: int) -> None:
        nonlocal written
        with log.open("a") as file:
            for _ in range(count):
                written = next(numbers)
                file.write(f"{written} of many lines\n")

    def stored() -> list[int]:
        return [int(value["message"].split()[0]) for value in daemon.values("app")]

    with contextlib.closing(daemon):
        append(10)
        daemon.start()
        eventually(lambda: len(stored()) == 10, "the first lines")
        for number in range(ROUNDS):
            append(10)
            is_down = number % 2 == 1 and mode not in NOT_FOUND_LATER
            if is_down:
                daemon.kill()
                append(10)
            _rotate(rotation)
            append(10)
            if is_down:
                daemon.start()
        with contextlib.suppress(AssertionError):  # what is missing says more
            eventually(lambda: len(stored()) >= written, "all lines")
        assert sorted(stored()) == list(range(1, written + 1)), daemon.log_path.read_text()


def _rotate(rotation: Path) -> None:
    # The clock of time(2) is some milliseconds late.
    due_s = int(time.time()) + 1.1
    eventually(lambda: time.time() > due_s, "another second, for names with a time")
    assert LOGROTATE is not None
    done = subprocess.run(
        [LOGROTATE, "--force", "--state", rotation.with_name("state"), rotation],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
