"""The client is a guest: what belongs to the whole process stays as the application has it."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logengine import AsyncClient, Client, LogEngineHandler, NotDurable
from logengine.client import descriptors, shutdown
from tests.daemon import PATIENCE_S, Daemon, eventually


def run(code: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=root,
        env=os.environ | {"LOGENGINE_SOCKET": str(root / "socket")},
    )


# Signals.

BROKEN = """
import signal, socket
from logengine.client.descriptors import OwnSocket
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
ours, others = map(OwnSocket, socket.socketpair())
others.close()
try: ours.send(b"x")
except BrokenPipeError: print("goes on")
"""


def test_a_daemon_that_goes_away_sends_the_application_no_signal(root: Path) -> None:
    done = run(BROKEN, root)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


UNREAD = """
import os, signal
from logengine.client.stderr_notices import tell
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
reading, writing = os.pipe()
os.dup2(writing, 2)
os.close(reading)
tell("nobody reads this")
print("goes on")
"""


def test_a_report_that_nobody_reads_sends_the_application_no_signal(root: Path) -> None:
    done = run(UNREAD, root)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


WAITED_FOR = """
import os, signal, logengine
client = logengine.Client("app")
client.send({"n": 1})
client.flush(60)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.kill(os.getpid(), signal.SIGUSR1)
print(signal.sigwait({signal.SIGUSR1}).name)
"""


def test_a_signal_that_the_application_waits_for_does_not_kill_it(
    daemon: Daemon, root: Path
) -> None:
    done = run(WAITED_FOR, root)
    assert (done.returncode, done.stdout) == (0, "SIGUSR1\n")


# The state of modules.

SEEDED = """
import asyncio, random, logengine
random.seed(7)
before = random.getstate()
client = logengine.Client("app", close_timeout=0)
client.send({"n": 1})
try: client.flush(0.5)
except logengine.NotDurable: pass
async def main():
    client = logengine.AsyncClient("app")
    await client.send({"n": 1})
    try: await client.flush(0.5)
    except logengine.NotDurable: pass
    try: await client.close(0)
    except logengine.NotDurable: pass
asyncio.run(main())
print(random.getstate() == before)
"""


def test_the_random_numbers_of_a_seeded_program_stay_as_they_are(root: Path) -> None:
    assert run(SEEDED, root).stdout == "True\n"


class Refused(socket.socket):
    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("this test may not use the network")


def test_a_test_that_forbids_sockets_does_not_stop_the_client(daemon: Daemon) -> None:
    with pytest.MonkeyPatch.context() as patch, Client("app", socket=daemon.socket) as client:
        patch.setattr(socket, "socket", Refused)
        client.send({"n": 1})
        client.flush(PATIENCE_S)


# Kernels that lack something.


def test_a_kernel_without_cookies_of_sockets_is_enough(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_SO_COOKIE", 0x7FFF)
    with Client("app", socket=daemon.socket) as client:
        client.send({"n": 1})
        client.flush(PATIENCE_S)
        daemon.kill()
        daemon.start()
        client.send({"n": 2})
        client.flush(PATIENCE_S)
    assert [value["n"] for value in daemon.values("app")] == [1, 2]


# A daemon that hangs.


@contextlib.contextmanager
def hanging(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield


def test_a_daemon_that_hangs_is_not_said_to_be_missing(root: Path) -> None:
    with hanging(root / "socket"):
        client = Client("app", socket=root / "socket")
        client.send({"n": 1})
        eventually(lambda: client.away and client.away.endswith("does not answer"))
        with pytest.raises(NotDurable, match=f"{root / 'socket'} does not answer"):
            client.close(timeout=0)


def said_of(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    said: list[str] = []

    def look() -> str:
        said.append(capsys.readouterr().err)
        return "".join(said)

    return look


def test_a_daemon_that_hangs_is_reported(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_of(capsys)
    with hanging(root / "socket"):
        client = Client("app", socket=root / "socket")
        client.send({"n": 1})
        eventually(lambda: "does not answer; records wait\n" in said())
        with pytest.raises(NotDurable):
            client.close(timeout=0)
    assert len(said().splitlines()) == 1


async def test_a_daemon_that_hangs_is_reported_by_an_asyncio_client(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of(capsys)
    with hanging(root / "socket"):
        client = AsyncClient("app", socket=root / "socket")
        await client.send({"n": 1})
        await asyncio.to_thread(eventually, lambda: "does not answer; records wait\n" in said())
        with pytest.raises(NotDurable):
            await client.close(timeout=0)
    assert len(said().splitlines()) == 1


# Reports.


async def test_a_close_that_is_cancelled_reports_what_is_lost(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = AsyncClient("app", socket=root / "socket")
    await client.send({"n": 1})
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert "1 records of stream 'app' are not durable" in capsys.readouterr().err


def test_a_forked_child_reports_for_itself(root: Path) -> None:
    code = """
import os
from logengine.client.stderr_notices import notice_once
for _ in "ab": notice_once("about", "which", "said")
if os.fork() == 0:
    for _ in "ab": notice_once("about", "which", "said")
    os._exit(0)
os.wait()
"""
    assert run(code, root).stderr == "logengine: said\n" * 2


def test_a_record_that_cannot_be_read_is_reported_once_without_a_traceback(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = LogEngineHandler("app", socket=root / "socket")
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "text", "created": float("nan")}))
    handler.close()
    first, last = capsys.readouterr().err.splitlines()
    assert "was lost, later ones are counted" in first
    assert last == "logengine: 3 records of stream 'app' were lost in total"


LATE = """
import gc, logging, logengine
gc.disable()
handler = logengine.LogEngineHandler("app", close_timeout=1)
logging.basicConfig(handlers=[handler], level="INFO")
class Session:
    def __init__(self): self.itself = self
    def __del__(self): logging.info("unclosed")
logging.info("first")
for _ in range(500): Session()
"""


def test_what_is_logged_at_exit_without_a_daemon_does_not_delay_the_exit_each_time(
    root: Path,
) -> None:
    done = run(LATE, root)  # in `PATIENCE_S`, a fraction of a second for each
    assert "was lost, later ones are counted" in done.stderr


def test_records_logged_at_exit_without_a_daemon_wait_for_a_second_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0

    def pass_time(timeout_s: float) -> bool:
        nonlocal now
        now += timeout_s
        return False

    monkeypatch.setattr(shutdown, "now_s", lambda: now)
    monkeypatch.setattr(shutdown, "_exiting", [os.getpid()])
    waited = 0.0
    for began in (100.0, *[None] * 1_000):
        before = now
        assert not shutdown.wait_together("a socket", 5.0, began, pass_time, looks_since=now)
        waited += now - before
        now += 2.0
    assert 5.0 < waited < 6.1
