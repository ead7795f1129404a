"""The client in programs as they are: none hangs, none loses in silence, all of them end."""

import asyncio
import contextlib
import copy
import itertools
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from logengine import AsyncClient, Client, LogEngineHandler, NotDurable, StructlogFactory
from logengine.client import delivery_thread
from logengine.errors import ProducerFenced, renewed
from tests.daemon import PATIENCE_S, Daemon, eventually


def run(code: str, root: Path, *, is_there: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=root,
        env=os.environ | {"LOGENGINE_SOCKET": str(root / ("socket" if is_there else "nobody"))},
    )


def numbers(daemon: Daemon, stream: str = "app") -> list[int]:
    return [value["n"] for value in daemon.values(stream)]


SIGNALS = """
import itertools, signal, sys, logengine
client = logengine.Client("app")
handled = itertools.count(1)
def beat(*_): client.send({"who": "handler", "n": next(handled)})
signal.signal(signal.SIGALRM, beat)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for n in range(1, 20_001):
    client.send({"who": "main", "n": n})
signal.setitimer(signal.ITIMER_REAL, 0)
client.flush(30)
print(next(handled) - 1)
"""


def test_a_signal_handler_logs_while_its_thread_does(daemon: Daemon, root: Path) -> None:
    done = run(SIGNALS, root)
    assert (done.returncode, done.stderr) == (0, "")
    stored = daemon.values("app")
    assert [v["n"] for v in stored if v["who"] == "main"] == list(range(1, 20_001))
    handled = [v["n"] for v in stored if v["who"] == "handler"]
    assert sorted(handled) == list(range(1, int(done.stdout) + 1))


COLLECTED = """
import gc, logging, logengine
gc.set_threshold(1)
handler = logengine.LogEngineHandler("app")
log = logging.getLogger("app"); log.setLevel("INFO"); log.addHandler(handler)
class Session:
    made = 0
    def __init__(self): self.itself = self
    def __del__(self):
        Session.made += 1
        log.info("unclosed", extra={"who": "del", "n": Session.made})
for n in range(1, 1001):
    Session()
    log.info("main", extra={"who": "main", "n": n})
gc.disable()
handler.client.flush(30)
print(Session.made)
"""


def test_what_a_collection_finds_logs_in_whatever_thread_it_runs(
    daemon: Daemon, root: Path
) -> None:
    done = run(COLLECTED, root)
    assert (done.returncode, done.stderr) == (0, "")
    stored = daemon.values("app")
    assert [v["n"] for v in stored if v["who"] == "main"] == list(range(1, 1001))
    assert {v["n"] for v in stored if v["who"] == "del"} >= set(range(1, int(done.stdout) + 1))


FOUND_AT_THE_END = """
import gc, logging, logengine
gc.disable()
handler = logengine.LogEngineHandler("app", close_timeout=60)
log = logging.getLogger("app"); log.setLevel("INFO"); log.addHandler(handler)
class Session:
    def __init__(self, n): self.itself, self.n = self, n
    def __del__(self): log.info("unclosed", extra={"n": self.n})
log.info("main", extra={"n": 0})
for n in (1, 2, 3): Session(n)
"""


def test_what_a_collection_finds_while_the_interpreter_ends_is_sent(
    daemon: Daemon, root: Path
) -> None:
    done = run(FOUND_AT_THE_END, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(numbers(daemon)) == [0, 1, 2, 3]


# A child of such a fork inherits the lock of Python's interpreter as it is. If another thread was
# on its way to it, the C library waits for that thread, which the child does not have.
FORKED_IN_C = """
import ctypes, os, time, logengine
client = logengine.Client("app")
client.send({"n": 0}); client.flush(30)
fork = ctypes.PyDLL(None).fork  # no hook of Python's hears of it
POLL, LONG_MS = "7", 1000
def is_at_rest(thread):
    call = open(f"/proc/self/task/{thread}/syscall").read().split()
    return call[0] == POLL and int(call[3], 16) >= LONG_MS
def others(): return set(os.listdir("/proc/self/task")) - {str(os.getpid())}
children = []
for n in (1, 2, 3):
    assert len(others()) == 1
    while not all(map(is_at_rest, others())): time.sleep(0)
    pid = fork()
    if pid == 0:
        client.send({"n": n}); client.flush(30)
        os._exit(0)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
client.send({"n": 4})
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads a system call by its number")
def test_a_child_of_a_fork_that_ran_no_hooks_delivers(daemon: Daemon, root: Path) -> None:
    done = run(FORKED_IN_C, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(numbers(daemon)) == [0, 1, 2, 3, 4]


CLOSED = """
import os, logengine
client = logengine.Client("app")
client.send({"n": 1}); client.flush(30)
os.closerange(3, 256)
own = [os.open(f"own-{n}", os.O_RDWR | os.O_CREAT) for n in range(16)]
for n in range(2, 50):
    client.send({"n": n})
client.flush(30)
for descriptor in own:
    os.fstat(descriptor)
"""


def test_an_application_that_closes_all_descriptors_keeps_its_own_files(
    daemon: Daemon, root: Path
) -> None:
    done = run(CLOSED, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(daemon) == list(range(1, 50))
    assert [path.stat().st_size for path in root.glob("own-*")] == [0] * 16


WITHOUT_STANDARD = """
import asyncio, contextlib, os, pathlib, logengine

def print_as_c_libraries_do():
    for number in range(3):
        with contextlib.suppress(OSError):
            os.write(number, b"warning: from a C library\\n")

async def main():
    async with logengine.AsyncClient("asyncio") as client:
        for n in range(5):
            await client.send({"n": n})
            await client.flush(30)
            print_as_c_libraries_do()

client = logengine.Client("threads")
for n in range(5):
    client.send({"n": n})
    client.flush(30)
    print_as_c_libraries_do()
asyncio.run(main())
pathlib.Path("done").touch()
"""


def test_what_is_printed_without_a_standard_output_is_not_sent_to_the_daemon(
    daemon: Daemon, root: Path
) -> None:
    script = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", WITHOUT_STANDARD]
    environment = os.environ | {"LOGENGINE_SOCKET": str(root / "socket")}
    subprocess.run(script, check=False, timeout=PATIENCE_S, cwd=root, env=environment)
    assert (root / "done").exists()
    assert numbers(daemon, "threads") == numbers(daemon, "asyncio") == [0, 1, 2, 3, 4]


FROZEN = """
import logging, time, logengine
time.monotonic = lambda: 5.0
time.time = lambda: 1e9
client = logengine.Client("app", max_records=10, block_max=0.1, close_timeout=0.3)
for n in range(20):
    client.send({"n": n})
try:
    client.flush(0.1)
except logengine.NotDurable as error:
    print(error.count)
"""


def test_a_test_that_stops_time_does_not_stop_the_client(root: Path) -> None:
    done = run(FROZEN, root, is_there=False)
    assert (done.returncode, done.stdout) == (0, "10\n")
    assert "records of stream 'app' are not durable" in done.stderr


EARLY = """
import os, sys
def log_early():
    client.send({"n": 1})
if %r: os.register_at_fork(after_in_child=log_early)
import %s as processes, logengine
if not %r: os.register_at_fork(after_in_child=log_early)
client = logengine.Client("app")
def work():
    for n in range(2, 50): client.send({"n": n})
worker = processes.get_context("fork").Process(target=work)
worker.start()
worker.join()
assert worker.exitcode == 0
"""


@pytest.mark.parametrize("is_first", [True, False], ids=["hook first", "client first"])
@pytest.mark.parametrize("library", ["multiprocessing", "billiard"])
def test_a_worker_in_which_a_hook_of_its_fork_logged_has_sent_everything(
    daemon: Daemon, root: Path, library: str, is_first: bool
) -> None:
    done = run(EARLY % (is_first, library, is_first), root)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(daemon) == list(range(1, 50))


EXHAUSTED = """
import os, resource, logengine
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
client = logengine.Client("app", spool=%r)
client.send({"n": 0}) if %r else None
client.flush(30)
def application():
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for n in range(1, 1000):
        client.send({"n": n})
    try:
        client.flush(2)
        %s
    except logengine.NotDurable:
        pass
    for descriptor in taken:
        os.close(descriptor)
    client.flush(30)
%s
"""
IN_CHILD = """
if os.fork() == 0:
    application()
    client.close()
    os._exit(0)
assert os.wait()[1] == 0
"""


@pytest.mark.parametrize("spool", [None, "spool"])
@pytest.mark.parametrize("is_child", [False, True], ids=["first", "child"])
def test_an_application_without_a_descriptor_left_loses_nothing_and_is_told_once(
    daemon: Daemon, root: Path, spool: str | None, is_child: bool
) -> None:
    code = EXHAUSTED % (spool, is_child, "assert False", IN_CHILD if is_child else "application()")
    done = run(code, root)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no free file descriptor: Too many open files") == 1
    assert len(done.stderr.splitlines()) == 1
    assert numbers(daemon) == [*([0] if is_child else []), *range(1, 1000)]


def test_a_thread_that_was_replaced_takes_nothing_from_the_one_that_goes_on(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client("app", socket=daemon.socket)
    client.send({"n": 1})
    client.flush(PATIENCE_S)
    of_client = client._thread
    first = of_client._thread
    real = delivery_thread._wait_for_any
    held, released = threading.Event(), threading.Event()

    def wait(wakeup: Any, *arguments: Any, **options: Any) -> list[int]:
        if threading.get_ident() != first:
            return real(wakeup, *arguments, **options)
        held.set()
        assert released.wait(PATIENCE_S)
        return [wakeup.number]

    monkeypatch.setattr(delivery_thread, "_wait_for_any", wait)
    client.send({"n": 2})
    assert held.wait(PATIENCE_S)
    assert of_client._wakeup is not None
    os.close(of_client._wakeup.number)  # as an application does that closes what is not its own
    client.send({"n": 3})
    client.flush(PATIENCE_S)
    eventually(lambda: of_client._asleep)
    released.set()
    eventually(lambda: first not in sys._current_frames())
    client.send({"n": 4})
    client.flush(PATIENCE_S)
    client.close()
    assert numbers(daemon) == [1, 2, 3, 4]


NO_THREADS = """
import _thread, logengine.client.delivery_thread as module, logengine
real = module.start_new_thread
def refuse(*_): raise RuntimeError("can't start new thread")
module.start_new_thread = refuse
client = logengine.Client("app")
for n in range(1, 4): client.send({"n": n})
%s
"""


@pytest.mark.parametrize(
    "later",
    ["module.start_new_thread = real; client.send({'n': 4}); client.flush(30)", "client.close()"],
)
def test_a_thread_that_cannot_be_had_is_tried_again_and_at_the_end_done_without(
    daemon: Daemon, root: Path, later: str
) -> None:
    done = run(NO_THREADS % later, root)
    assert done.returncode == 0
    assert done.stderr.count("can't start new thread") == 1
    assert len(done.stderr.splitlines()) == 1
    assert numbers(daemon) == ([1, 2, 3] if "close" in later else [1, 2, 3, 4])


def test_what_a_function_of_atexit_logs_after_the_end_is_sent(daemon: Daemon, root: Path) -> None:
    code = """
import atexit
atexit.register(lambda: log.info("last", extra={"n": 2}))
atexit.register(lambda: client.send({"n": 1}))
import logging, logengine
client = logengine.Client("app")
client.send({"n": 0})
log = logging.getLogger("a"); log.setLevel("INFO")
log.addHandler(logengine.LogEngineHandler("app"))
"""
    done = run(code, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(daemon) == [0, 1, 2]


EIGHT = """
import logging, time, logengine
for n in range(8):
    log = logging.getLogger(f"part{n}"); log.setLevel("INFO")
    log.addHandler(logengine.LogEngineHandler(f"part{n}", close_timeout=2, %s))
    log.info("hello")
began = time.monotonic()
%s
print(time.monotonic() - began)
"""


@pytest.mark.parametrize("end", ["logging.shutdown()", "logging.basicConfig(force=True)", ""])
def test_all_clients_of_a_process_wait_once_for_a_daemon_that_is_away(root: Path, end: str) -> None:
    began = time.monotonic()
    done = run(EIGHT % ("", end), root, is_there=False)
    assert done.returncode == 0
    # One after the other it would be sixteen seconds, and for each a flush and a close.
    assert time.monotonic() - began < 16
    if end != "logging.basicConfig(force=True)":
        assert done.stderr.count("are not durable") == 8


def test_with_a_spool_a_daemon_that_was_never_there_is_hardly_waited_for(root: Path) -> None:
    code = EIGHT.replace("close_timeout=2", "close_timeout=30") % (
        f"spool={str(root / 'sp')!r}",
        "",
    )
    done = run(code, root, is_there=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((root / "sp").rglob("*.ndjson"))) == 8


def test_a_full_memory_costs_an_application_a_second_and_not_its_life(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = LogEngineHandler(
        "app", socket=root / "socket", max_records=5, close_timeout=0, block_max=0.05
    )
    for n in range(1000):
        handler.client.send({"n": n})
    assert handler.client.dropped == 995
    assert capsys.readouterr().err.count("is full, records are dropped and counted") == 1
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        daemon.start()
        handler.client.flush(PATIENCE_S)
        eventually(lambda: len(daemon.values("app")) == 6)
        handler.close()
        assert daemon.values("app")[5]["dropped"] == 995


def test_a_wait_for_room_is_broken_by_a_signal(root: Path) -> None:
    code = """
import signal, logengine
def stop(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
client = logengine.Client("app", max_records=1, close_timeout=0)
client.send({"n": 1})
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    client.send({"n": 2})
except KeyboardInterrupt:
    print("broken")
"""
    done = run(code, root, is_there=False)
    assert done.stdout == "broken\n"


def test_a_signal_handler_does_not_wait_within_the_wait_of_its_thread(
    daemon: Daemon, root: Path
) -> None:
    code = """
import signal, logengine
handled = 0
def beat(*_):
    global handled
    handled += 1
    client.send({"who": "handler", "n": handled})
signal.signal(signal.SIGALRM, beat)
client = logengine.Client("app", max_records=100)
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
for n in range(1_000): client.send({"who": "main", "n": n, "pad": "x" * 1000})
signal.setitimer(signal.ITIMER_REAL, 0)
client.flush(30)
"""
    done = run(code, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(value["who"] == "main" for value in daemon.values("app")) == 1_000


def test_a_signal_handler_never_waits_for_room(root: Path) -> None:
    code = """
import functools, signal, logengine
class Handler:
    def __call__(self, *_): places.append(client.send({"who": "handler"}))
places = []
client = logengine.Client("app", max_records=80, close_timeout=0)
for n in range(80): client.send({"n": n})
within = lambda *_: Handler()()
for handler in (Handler(), Handler().__call__, within, functools.partial(Handler())):
    signal.signal(signal.SIGUSR1, handler)
    for _ in range(10): signal.raise_signal(signal.SIGUSR1)
print(sum(place > 0 for place in places), len(places), client.dropped)
"""
    done = run(code, root, is_there=False)
    # An eighth more than `max_records` is taken; what is beyond that is dropped and counted.
    assert done.stdout == "10 40 30\n"


def test_a_daemon_that_is_away_is_said_once_with_its_socket(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotDurable), Client("app", socket=root / "socket") as client:
        client.send({"n": 1})
        with pytest.raises(NotDurable):
            client.flush(4)
        client.close(timeout=0)
    said = capsys.readouterr().err
    assert said.count(f"no daemon at {root / 'socket'}") == 1
    assert len(said.splitlines()) == 1


def test_a_client_that_ended_says_so_once_and_counts(root: Path) -> None:
    code = """
import logging, logengine
handler = logengine.LogEngineHandler("app", away_max=0.05, close_timeout=1)
logging.basicConfig(handlers=[handler], level="INFO")
logging.info("first")
try: handler.client.flush(30)
except logengine.LogEngineError: pass
for n in range(1000): logging.info("record")
handler.close()
"""
    done = run(code, root, is_there=False)
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "DaemonUnavailable" in lines[0]
    assert "1000 records of stream 'app' were lost" in lines[2]


LATE = """
import atexit, logging, os, threading
def log():
    for n in range(100): logging.info("late")
atexit.register(log) if %r else None
import logengine
handler = logengine.LogEngineHandler("app")
logging.basicConfig(handlers=[handler], level="INFO")
logging.info("in time")
%s
log()
"""


@pytest.mark.parametrize(
    ("is_atexit", "lost", "end"),
    [(False, 100, "handler.close()"), (True, 200, "logging.shutdown()")],
)
def test_what_is_logged_after_a_close_is_counted_to_the_end(
    daemon: Daemon, root: Path, lost: int, end: str, is_atexit: bool
) -> None:
    done = run(LATE % (is_atexit, end), root)
    first, *_, last = done.stderr.splitlines()
    assert "a record of stream 'app' was lost, later ones are counted: ClientClosed" in first
    assert last == f"logengine: {lost} records of stream 'app' were lost in total"
    assert len(daemon.values("app")) == 1


INTERRUPTED = """
import logging, os, signal, threading, time, logengine
from logengine.client import shutdown
%s
for stream in ("one", "two"):
    handler = logengine.LogEngineHandler(stream, close_timeout=600)
    logging.getLogger(stream).addHandler(handler)
    logging.getLogger(stream).warning("hello")
def interrupt():
    while not any(client._closed for client in list(shutdown._clients.values())):
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.%s)
threading.Thread(target=interrupt, daemon=True).start()
"""
AS_THE_PAGE_SAYS = "import sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
NO_MORE_THREADS = """
from logengine.client import delivery_thread
def refuse(*_): raise RuntimeError("can't start new thread")
delivery_thread.start_new_thread = refuse
"""


@pytest.mark.parametrize(
    ("before", "number"),
    [("", "SIGINT"), (AS_THE_PAGE_SAYS, "SIGTERM"), (NO_MORE_THREADS, "SIGINT")],
    ids=["ctrl-c", "sigterm", "no thread"],
)
def test_an_interrupted_wait_at_exit_ends_at_once_and_says_what_is_lost(
    root: Path, before: str, number: str
) -> None:
    done = run(INTERRUPTED % (before, number), root, is_there=False)
    for stream in ("one", "two"):
        assert done.stderr.count(f"1 records of stream '{stream}' are not durable") == 1


def interrupted_at(instruction: int, call: Callable[[], object]) -> bool:
    """Raises `KeyboardInterrupt` at one instruction of the client; False if there are fewer."""
    counted = itertools.count(1)

    def follow(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = "logengine/client" in frame.f_code.co_filename
        if event == "opcode" and next(counted) == instruction:
            sys.settrace(None)
            raise KeyboardInterrupt
        return follow

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_send_interrupted_at_any_instruction_delays_no_flush(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_thread, "LOOK_S", 2 * PATIENCE_S)
    with Client("app", socket=daemon.socket) as client:
        client.send({"n": 0})
        client.flush(PATIENCE_S)
        for n in itertools.count(1):
            eventually(lambda: client._thread._asleep)
            was_interrupted = interrupted_at(n, lambda n=n: client.send({"n": 2 * n}))  # type: ignore[misc]
            client.send({"n": 2 * n + 1})
            client.flush(PATIENCE_S)
            if not was_interrupted:
                break
    found = numbers(daemon)
    assert len(found) == len(set(found))
    assert set(found) >= {0, *range(3, 2 * n + 2, 2), 2 * n}


def test_a_close_that_is_interrupted_has_a_note_about_what_is_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client("app", socket=root / "nobody")
    client.send({"n": 1})

    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(client._thread, "wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        client.close()
    assert "1 records of stream 'app' are not durable" in caught.value.__notes__[0]
    assert client.is_closed


def test_an_error_is_raised_anew_each_time_and_can_be_pickled() -> None:
    error = NotDurable("why", 3, 1)
    for other in (renewed(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert other is not error
        assert (str(other), other.count, other.spooled) == ("why", 3, 1)
        assert other.__traceback__ is None
    assert isinstance(renewed(ProducerFenced("x")), ProducerFenced)


def test_copies_of_a_logger_send_by_the_same_client(daemon: Daemon) -> None:
    factory = StructlogFactory("app", socket=daemon.socket)
    logger: Any = factory()
    logger.info(n=1)
    copy.copy(logger).info(n=2)
    copy.deepcopy(logger).info(n=3)
    pickle.loads(pickle.dumps(logger)).info(n=4)
    factory.client.close()
    assert numbers(daemon) == [1, 2, 3, 4]


def test_a_pickled_client_is_another_in_another_process(daemon: Daemon, root: Path) -> None:
    with Client("app", socket=daemon.socket, producer="p") as client:
        client.send({"n": 1})
        (root / "pickled").write_bytes(pickle.dumps(client))
        code = "import pickle; pickle.load(open('pickled','rb')).send({'n': 2})"
        done = run(code, root)
        assert (done.returncode, done.stderr) == (0, "")
        client.send({"n": 3})
        client.flush(PATIENCE_S)
    assert sorted(numbers(daemon)) == [1, 2, 3]


def test_a_relative_socket_of_the_environment_is_kept_through_a_chdir(
    daemon: Daemon, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("LOGENGINE_SOCKET", "socket")
    with Client("app") as client:
        monkeypatch.chdir("/")
        client.send({"n": 1})
    assert numbers(daemon) == [1]


# Event loops.


async def test_a_task_that_was_cancelled_is_followed_by_another(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        for n in range(5):
            await client.send({"n": n})
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
        await client.flush(PATIENCE_S)
    assert numbers(daemon) == list(range(5))


def test_a_client_goes_on_in_the_next_loop(daemon: Daemon) -> None:
    client = AsyncClient("app", socket=daemon.socket)

    async def send(n: int) -> None:
        await client.send({"n": n})
        if n % 2:
            await client.flush(PATIENCE_S)

    for n in range(4):
        asyncio.run(send(n))
    asyncio.run(client.close())
    assert numbers(daemon) == list(range(4))


def test_a_client_follows_from_loop_to_loop_though_none_of_them_cancels(daemon: Daemon) -> None:
    client = AsyncClient("app", socket=daemon.socket)
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def send(n: int) -> None:
        await client.send({"n": n})
        if n % 3 == 0:
            await client.flush(PATIENCE_S)

    for n in range(12):
        loops[n // 2 % 2].run_until_complete(send(n))
    loops[0].run_until_complete(client.close())
    for loop in loops:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert numbers(daemon) == list(range(12))


def test_what_a_loop_left_is_sent_at_exit(daemon: Daemon, root: Path) -> None:
    code = """
import asyncio, logengine
client = logengine.AsyncClient("app")
async def main():
    for n in range(100): await client.send({"n": n})
asyncio.run(main())
"""
    done = run(code, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(daemon) == list(range(100))


async def test_an_asyncio_client_drops_after_block_max(root: Path) -> None:
    client = AsyncClient("app", socket=root / "socket", max_records=1, block_max=0.05)
    assert [await client.send({"n": n}) for n in range(100)] == [1, *[0] * 99]
    assert client.dropped == 99
    with pytest.raises(NotDurable):
        await client.close(timeout=0)


# Processes that end by others' ways.

POOL = """
import logging, multiprocessing, logengine
logging.basicConfig(handlers=[logengine.LogEngineHandler("app")], level="INFO")
def task(n): logging.info("task", extra={"n": n})
if __name__ == "__main__":
    with multiprocessing.get_context("%s").Pool(2) as pool:
        pool.map(task, range(100), chunksize=1)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_workers_of_a_pool_have_sent_everything(
    daemon: Daemon, root: Path, method: str
) -> None:
    (root / "app.py").write_text(POOL % method)
    done = subprocess.run(
        [sys.executable, root / "app.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"LOGENGINE_SOCKET": str(daemon.socket)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(numbers(daemon)) == list(range(100))


def test_a_sigterm_that_an_application_takes_as_the_page_says_loses_nothing(
    daemon: Daemon, root: Path
) -> None:
    code = """
import signal, sys, time, logengine
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
client = logengine.Client("app")
for n in range(1000): client.send({"n": n})
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=os.environ | {"LOGENGINE_SOCKET": str(daemon.socket)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 143
    assert numbers(daemon) == list(range(1000))


def test_a_fork_while_logging_is_configured_again_waits_for_the_flush_alone(root: Path) -> None:
    code = """
import faulthandler, logging, logging.config, os, threading, time
faulthandler.dump_traceback_later(40, exit=True)
def config(): return {"version": 1, "root": {"handlers": ["h"], "level": "INFO"},
    "handlers": {"h": {"class": "logengine.LogEngineHandler", "stream": "app", "close_timeout": 1}}}
logging.config.dictConfig(config())
logging.info("no daemon is there")
thread = threading.Thread(target=lambda: logging.config.dictConfig(config())); thread.start()
time.sleep(0.2)
if not os.fork(): os._exit(0)
thread.join()
print("returned")
"""
    done = run(code, root, is_there=False)
    assert done.stdout == "returned\n"
