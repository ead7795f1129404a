"""The client within servers, workers, green threads and kernels of others, the real ones.

The table in `docs/clients.md` has a line for each.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import Daemon, eventually
from tests.ports import free_port

PATIENCE_S = 180.0  # they import much, on a machine that has other things to do
BIN = Path(sys.executable).parent


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")


def environment(daemon: Daemon) -> dict[str, str]:
    return os.environ | {
        "LOGENGINE_SOCKET": str(daemon.socket),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }


def numbers(daemon: Daemon) -> list[int]:
    return sorted(value["n"] for value in daemon.values("app") if "n" in value)


def run(daemon: Daemon, root: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs a program from a file, as `spawn` needs it."""
    path = root / "program.py"
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=root,
        env=environment(daemon),
    )
    assert done.returncode == 0, done.stderr
    assert "logengine:" not in done.stderr
    return done


@contextmanager
def server(daemon: Daemon, root: Path, *command: str, port: int) -> Iterator[None]:
    """A server that answers at `port`; stopped by SIGTERM at the end."""
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=root, env=environment(daemon)
        )
    try:
        eventually(lambda: is_answering(port), f"{command[0]} to answer", patience_s=PATIENCE_S)
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def is_answering(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, n: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{n}", timeout=PATIENCE_S) as answer:
        assert answer.status == 200


WSGI = """
import logging, logengine
handler = logengine.LogEngineHandler("app")
logging.basicConfig(handlers=[handler], level="INFO")
logging.info("loaded")
handler.flush()
def application(environ, start_response):
    logging.info("request", extra={"n": int(environ["PATH_INFO"].strip("/"))})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


@needs("gunicorn")
@pytest.mark.parametrize(
    "options",
    [
        ("--worker-class", "sync"),
        ("--worker-class", "gthread", "--threads", "2"),
        ("--preload",),
        ("--worker-class", "gevent"),
    ],
    ids=["sync", "gthread", "preload", "gevent"],
)
def test_gunicorn(daemon: Daemon, root: Path, options: tuple[str, ...]) -> None:
    (root / "shop.py").write_text(WSGI)
    port = free_port()
    command = (sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2")
    with server(daemon, root, *command, *options, "shop:application", port=port):
        for n in range(20):
            ask(port, n)
    assert numbers(daemon) == list(range(20))


UWSGI = BIN / "uwsgi"


@pytest.mark.skipif(not UWSGI.exists(), reason="not installed: uwsgi (logengine[uwsgi])")
@pytest.mark.parametrize(
    "options",
    [(), ("--enable-threads",), ("--enable-threads", "--py-call-uwsgi-fork-hooks")],
    ids=["no threads", "threads", "fork hooks"],
)
def test_uwsgi(daemon: Daemon, root: Path, options: tuple[str, ...]) -> None:
    (root / "shop.py").write_text(WSGI)
    port = free_port()
    command = (str(UWSGI), "--http-socket", f"127.0.0.1:{port}", "--module", "shop")
    more = ("--master", "--processes", "2", "--need-app", "--die-on-term", "--disable-logging")
    with server(daemon, root, *command, *more, *options, port=port):
        for n in range(20):
            ask(port, n)
    assert numbers(daemon) == list(range(20))


ASGI = """
import logging, logging.config, logengine
logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False,
    "handlers": {"daemon": {"class": "logengine.LogEngineHandler", "stream": "app"}},
    "root": {"handlers": ["daemon"], "level": "INFO"},
})
client = logengine.AsyncClient("app")
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await client.close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    n = int(scope["path"].strip("/"))
    logging.info("request", extra={"n": 2 * n})
    await client.send({"n": 2 * n + 1})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@needs("uvicorn")
def test_uvicorn(daemon: Daemon, root: Path) -> None:
    (root / "shop.py").write_text(ASGI)
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "--port", str(port), "shop:application")
    with server(daemon, root, *command, port=port):
        for n in range(20):
            ask(port, n)
    assert numbers(daemon) == list(range(40))


GREEN = """
%s
import logging, logengine
logging.basicConfig(handlers=[logengine.LogEngineHandler("app", max_records=50)], level="INFO")
def work(first):
    for n in range(first, first + 100):
        logging.info("green", extra={"n": n})
%s
"""
GREEN_PROGRAMS = {
    "gevent": (
        "import gevent.monkey; gevent.monkey.patch_all(); import gevent",
        "gevent.joinall([gevent.spawn(work, n * 100) for n in range(4)])",
    ),
    "gevent, imported after logengine": (
        "import logengine.client.logging_handler, gevent.monkey, gevent; gevent.monkey.patch_all()",
        "gevent.joinall([gevent.spawn(work, n * 100) for n in range(4)])",
    ),
    "eventlet": (
        "import eventlet; eventlet.monkey_patch()",
        "for thread in [eventlet.spawn(work, n * 100) for n in range(4)]: thread.wait()",
    ),
}


@pytest.mark.parametrize("library", GREEN_PROGRAMS)
@needs("gevent", "eventlet")
def test_green_threads(daemon: Daemon, root: Path, library: str) -> None:
    run(daemon, root, GREEN % GREEN_PROGRAMS[library])
    assert numbers(daemon) == list(range(400))


TASKS = """
import logging, logengine
from celery import Celery, signals
app = Celery("tasks", broker="filesystem://", backend=None)
app.conf.update(
    broker_transport_options={"data_folder_in": "queue", "data_folder_out": "queue",
                              "processed_folder": "done", "store_processed": False},
    worker_hijack_root_logger=False, broker_connection_retry_on_startup=False,
)
logging.basicConfig(handlers=[logengine.LogEngineHandler("app")], level="INFO")
@app.task
def work(n):
    logging.info("task", extra={"n": n})
"""


@needs("celery")
def test_celery_prefork(daemon: Daemon, root: Path) -> None:
    (root / "tasks.py").write_text(TASKS)
    (root / "queue").mkdir()
    ask_for = "import tasks\nfor n in range(20): tasks.work.delay(n)\n"
    run(daemon, root, ask_for)
    with (root / "celery.log").open("wb") as log:
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork"),
                *("--concurrency", "2", "--max-tasks-per-child", "3"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                *("--loglevel", "INFO"),
            ],
            stdout=log,
            stderr=log,
            cwd=root,
            env=environment(daemon),
        )
    try:
        eventually(lambda: len(set(numbers(daemon))) == 20, "the tasks", patience_s=PATIENCE_S)
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_S)
    finally:
        worker.kill()
        worker.wait()
        print((root / "celery.log").read_text())  # shown where this fails
    assert numbers(daemon) == list(range(20))


BILLIARD = """
import logging, billiard, logengine
logging.basicConfig(handlers=[logengine.LogEngineHandler("app")], level="INFO")
def task(n): logging.info("task", extra={"n": n})
if __name__ == "__main__":
    for n in range(10):
        process = billiard.Process(target=task, args=(n,)); process.start(); process.join()
"""


@needs("billiard")
def test_billiard(daemon: Daemon, root: Path) -> None:
    run(daemon, root, BILLIARD)
    assert numbers(daemon) == list(range(10))


BILLIARD_POOL = """
import logging, logengine
from billiard.pool import Pool
handler = logengine.LogEngineHandler("app", close_timeout=60)
logging.basicConfig(handlers=[handler], level="INFO")
def task(n): logging.info("task", extra={"n": n})
close_at_exit = logengine.Client.close_at_exit
def close(client, began):
    open("ending", "w").close()
    close_at_exit(client, began)
logengine.Client.close_at_exit = close
if __name__ == "__main__":
    pool = Pool(1, maxtasksperchild=%s)
    pool.apply(task, (0,))
    pool.%s()
    pool.join()
"""


@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("tasks_max", [None, 1])
@needs("billiard")
def test_a_worker_of_a_billiard_pool_waits_for_the_daemon_at_its_end(
    daemon: Daemon, root: Path, end: str, tasks_max: int | None
) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        program = threads.submit(run, daemon, root, BILLIARD_POOL % (tasks_max, end))
        is_ending = (root / "ending").exists
        eventually(lambda: is_ending() or program.done(), "its end", patience_s=PATIENCE_S)
        daemon.process.send_signal(signal.SIGCONT)
        program.result()
    assert numbers(daemon) == [0]


FUTURES = """
import concurrent.futures, logging, multiprocessing, logengine
logging.basicConfig(handlers=[logengine.LogEngineHandler("app")], level="INFO")
def task(n): logging.info("task", extra={"n": n})
if __name__ == "__main__":
    with %s as pool:
        list(pool.map(task, range(50)))
"""
POOLS = {
    "threads": "concurrent.futures.ThreadPoolExecutor(4)",
    **{
        method: "concurrent.futures.ProcessPoolExecutor(2, "
        f"mp_context=multiprocessing.get_context({method!r}))"
        for method in ("fork", "spawn", "forkserver")
    },
}


@pytest.mark.parametrize("pool", POOLS)
def test_concurrent_futures(daemon: Daemon, root: Path, pool: str) -> None:
    run(daemon, root, FUTURES % POOLS[pool])
    assert numbers(daemon) == list(range(50))


CAPTURED = """
import logging, pytest, logengine
handler = logengine.LogEngineHandler("app")
logging.getLogger().addHandler(handler)
@pytest.mark.parametrize("n", range(10))
def test_it(n, capsys, caplog):
    logging.getLogger().warning("in a test", extra={"n": n})
    assert capsys.readouterr().err == ""
    assert caplog.messages == ["in a test"]
"""


def test_pytest_with_its_capture(daemon: Daemon, root: Path) -> None:
    (root / "test_captured.py").write_text(CAPTURED)
    run(
        daemon,
        root,
        "import pytest, sys\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_captured.py']))",
    )
    assert numbers(daemon) == list(range(10))


KERNEL = """
from jupyter_client.manager import start_new_kernel
manager, kernel = start_new_kernel(kernel_name="python3", startup_timeout=180)
def run(code):
    reply = kernel.execute_interactive(code, timeout=180, output_hook=print)
    assert reply["content"]["status"] == "ok", reply
run("import logengine, logging\\nclient = logengine.AsyncClient('app')")
run("await client.send({'n': 0})")
run("await client.send({'n': 1}); await client.flush(30)")
run("logging.getLogger().addHandler(logengine.LogEngineHandler('app'))")
run("logging.warning('in a cell', extra={'n': 2})")
run("import asyncio; await client.send({'n': 3})")
kernel.stop_channels()
manager.shutdown_kernel()
"""


@needs("ipykernel", "jupyter_client")
def test_cells_of_a_jupyter_kernel(daemon: Daemon, root: Path) -> None:
    spec = root / "share" / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Python",
                "language": "python",
            }
        )
    )
    code = f"import os; os.environ['JUPYTER_PATH'] = {str(root / 'share' / 'jupyter')!r}\n"
    run(daemon, root, code + KERNEL)
    assert numbers(daemon) == [0, 1, 2, 3]
