"""The daemon keeps to `docs/protocol.md`, and the conformance script finds who does not."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.checks import CHECKS
from tests.daemon import Daemon
from tests.fake_server import FAULTS, FakeServer

FOUND_BY = {
    "acks beyond what was sent": "records may come right behind a hello without a producer",
    "acks go back": "acks never go back and never pass what was sent",
    "answers before a hello": "a sender without a hello is told nothing, and end of file ends it",
    "numbers blank lines": "blank lines have no number",
    "loses the last ack": "end of file comes when all is acknowledged",
    "takes any name and number": "names and numbers of a hello are held to their bounds",
    "does not fence": "a second connection of a producer fences the first",
    "forgets producers": "a producer resumes behind what was acknowledged",
    "says next as if nothing was lost": "a producer resumes behind what was acknowledged",
    "ignores first": "a producer that the server does not know goes on from its first",
    "takes first for all": "first counts only with a producer",
    "knows what it was told": "a welcome says what is known of a producer",
    "mixes streams": "numbers belong to a producer of a stream",
    "takes half a record of a producer": "a last line without LF is a record, "
    "but not of a producer",
    "refuses without a number": "a record that is too large is refused by its number, "
    "and the rest is taken",
    "acks before it refuses": "a record that is too large is refused by its number, "
    "and the rest is taken",
    "keeps a refused connection open": "a hello that is not as specified is refused as "
    "bad_hello, and the connection closed",
    "welcomes without max_record": "a hello is welcomed, with next 1 if it names no producer",
    "speaks no JSON": "a hello is welcomed, with next 1 if it names no producer",
}


def conformance(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance", str(path), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture
def restart(daemon: Daemon, root: Path) -> Iterator[str]:
    """A command that kills the daemon and starts it again."""
    assert daemon.process is not None
    pid = root / "pid"
    pid.write_text(str(daemon.process.pid))
    places = ["--data", str(daemon.data), "--socket", str(daemon.socket)]
    command = shlex.join([sys.executable, *daemon.program, "run", *places])
    is_gone = f"flock {daemon.data}/.lock true"
    yield f"kill -KILL $(cat {pid}); {is_gone}; {command} >{root}/log 2>&1 & echo $! >{pid}"
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_the_daemon_keeps_to_the_specification(daemon: Daemon, restart: str) -> None:
    done = conformance(daemon.socket, "--restart", restart)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(f"\n{len(CHECKS)} of {len(CHECKS)} checks ok\n")
    assert len(done.stdout.splitlines()) == len(CHECKS) + 1


def test_what_needs_a_restart_is_left_out_without_one(daemon: Daemon) -> None:
    done = conformance(daemon.socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("; 2 left out, which need --restart\n")


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_a_server_with_one_thing_wrong_fails_at_the_check_for_it(fault: str, root: Path) -> None:
    server = FakeServer(root / "socket", fault)
    try:
        done = conformance(root / "socket", "--patience", "2")
    finally:
        server.close()
    failed = re.findall(r"^FAILED (.*?): found .*, expected ", done.stdout, re.MULTILINE)
    assert done.returncode == bool(fault), done.stdout
    assert failed[:1] == ([FOUND_BY[fault]] if fault else []), done.stdout


def test_nobody_listening_is_a_failure_of_every_check(root: Path) -> None:
    done = conformance(root / "socket")
    assert done.returncode == 1
    assert "FAILED a hello is welcomed" in done.stdout
    assert "Traceback" not in done.stderr
