"""Workers of multiprocessing deliver or spool what they logged, wherever and whenever they did."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S

METHODS = ("fork", "spawn", "forkserver")


def run(code: str, root: Path) -> str:
    """Runs a program from a file, as `spawn` needs it, without a daemon. Returns its output."""
    (root / "app.py").write_text(code)
    done = subprocess.run(
        [sys.executable, root / "app.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=root,
        env=os.environ | {"LOGENGINE_SOCKET": str(root / "nobody")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def spooled(root: Path) -> list[int]:
    """The numbers of all records in spools. Each file begins with a header."""
    files = (path.read_text().splitlines()[1:] for path in (root / "spool").rglob("*.ndjson"))
    return sorted(json.loads(line)["n"] for lines in files for line in lines)


FROM_A_THREAD = """
import multiprocessing, threading, time, logengine
client = logengine.Client("app", spool="spool")
def log(is_logged):
    client.send({"n": 1})
    is_logged.set()
def work(is_logged):
    threading.Thread(target=log, args=(is_logged,)).start()
    while True: time.sleep(0.01)
if __name__ == "__main__":
    context = multiprocessing.get_context("%s")
    is_logged = context.Event()
    worker = context.Process(target=work, args=(is_logged,))
    worker.start()
    is_logged.wait()
    worker.terminate()
    worker.join()
    print(worker.exitcode)
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_first_logged_in_a_thread_loses_nothing_by_sigterm(
    root: Path, method: str
) -> None:
    assert run(FROM_A_THREAD % method, root) == "-15\n"
    assert spooled(root) == [1]


WHILE_IMPORTED = """
import multiprocessing, logengine
client = logengine.Client("app", spool="spool")
client.send({"n": 0})
def work(): client.send({"n": 1})
if __name__ == "__main__":
    worker = multiprocessing.get_context("%s").Process(target=work)
    worker.start()
    worker.join()
    print(worker.exitcode)
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_whose_program_logs_while_it_is_imported_loses_nothing(
    root: Path, method: str
) -> None:
    assert run(WHILE_IMPORTED % method, root) == "0\n"
    imports = 1 if method == "fork" else 2
    assert spooled(root) == [*[0] * imports, 1]


WHILE_CLOSING = """
import multiprocessing, os, signal, threading, time, logengine
client = logengine.Client("app", spool="spool")
def end():
    while not client.is_closed: time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
def work():
    client.send({"n": 1})
    threading.Thread(target=end, daemon=True).start()
    client.close(timeout=600)
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
worker.join()
print(worker.exitcode)
"""


def test_a_sigterm_that_interrupts_a_close_loses_nothing(root: Path) -> None:
    assert run(WHILE_CLOSING, root) == "-15\n"
    assert spooled(root) == [1]


CLOSING_IN_A_THREAD = """
import threading, time, logengine
client = logengine.Client("app", spool="spool")
client.send({"n": 1})
threading.Thread(target=client.close, args=(600,), daemon=True).start()
while not client.is_closed: time.sleep(0.01)
"""


def test_an_exit_while_a_daemon_thread_closes_loses_nothing(root: Path) -> None:
    assert run(CLOSING_IN_A_THREAD, root) == ""
    assert spooled(root) == [1]
