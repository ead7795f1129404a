"""Every example runs as it is, against a real daemon."""

import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import PATIENCE_S, Daemon, eventually

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(daemon: Daemon) -> dict[str, str]:
    return os.environ | {
        "LOGENGINE_SOCKET": str(daemon.socket),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def run(daemon: Daemon, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=EXAMPLES,
        env=environment(daemon),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def chosen(daemon: Daemon, stream: str, *names: str) -> list[tuple[Any, ...]]:
    """These fields of a stream's records."""
    return [tuple(value.get(name) for name in names) for value in daemon.values(stream)]


def test_django_settings(daemon: Daemon) -> None:
    # What Django does with its settings.
    program = """
import logging.config
import django_settings
logging.config.dictConfig(django_settings.LOGGING)
logging.getLogger("shop.views").info("order %s placed", 7, extra={"user": "ann"})
logging.getLogger("django.server").info("GET /")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("django.request").exception("no answer")
"""
    run(daemon, sys.executable, "-B", "-c", program)
    assert chosen(daemon, "shop", "level", "logger", "message", "user", "exception_type") == [
        ("info", "shop.views", "order 7 placed", "ann", None),
        ("error", "django.request", "no answer", None, "ZeroDivisionError"),
    ]


def test_structlog_worker(daemon: Daemon) -> None:
    run(daemon, sys.executable, "structlog_worker.py")
    assert chosen(daemon, "worker", "level", "event", "job", "result") == [
        ("info", "begun", 1, None),
        ("info", "done", 1, 100),
        ("info", "begun", 0, None),
        ("error", "failed", 0, None),
    ]
    assert "ZeroDivisionError" in daemon.values("worker")[-1]["exception"]


def test_asyncio_service(daemon: Daemon, root: Path) -> None:
    path = root / "orders.socket"
    with subprocess.Popen(
        [sys.executable, "asyncio_service.py", str(path)], cwd=EXAMPLES, env=environment(daemon)
    ) as service:
        try:
            with closing(socket.socket(socket.AF_UNIX)) as customer:
                customer.settimeout(PATIENCE_S)
                # Its path is there before it listens.
                eventually(lambda: customer.connect_ex(str(path)) == 0, "the service to listen")
                customer.sendall(b"tea\n")
                assert customer.recv(100) == b"accepted tea\n"
                # The answer came once the record was on disk, and so the daemon may go.
                assert ("order", "tea") in chosen(daemon, "orders", "event", "order")
            service.terminate()
            assert service.wait(PATIENCE_S) == 0
        finally:
            service.kill()
    assert chosen(daemon, "orders", "event") == [("ready",), ("order",), ("stopped",)]


def test_exec_in_a_pipe(daemon: Daemon, root: Path) -> None:
    directory = root / "some"
    directory.mkdir()
    for name in ("b", "a"):
        (directory / name).touch()
    run(daemon, "sh", "exec_in_a_pipe.sh", str(directory))
    assert chosen(daemon, "inventory", "fd", "message", "event") == [
        (1, f"{directory}/a", None),
        (1, f"{directory}/b", None),
        (None, None, "exited"),
    ]


@pytest.mark.parametrize("tool", ["nc", "socat"])
def test_send_from_the_shell(daemon: Daemon, tool: str) -> None:
    need(tool)
    if tool == "nc" and "[-" not in help_of("nc"):
        pytest.skip("this nc is not the one of netcat-openbsd, which has -N and -U")
    run(daemon, "sh", f"send_with_{tool}.sh")
    assert chosen(daemon, "backup", "event", "message") == [
        ("started", None),
        (None, "plain text is a record, too"),
    ]


@pytest.mark.parametrize("tool", ["nc", "socat"])
def test_send_from_the_shell_fails_without_a_daemon(root: Path, tool: str) -> None:
    need(tool)
    done = subprocess.run(
        ["sh", EXAMPLES / f"send_with_{tool}.sh"],
        env=environment(Daemon(root)),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"not on disk" in done.stderr


def test_node_client_sends_each_line_once_to_a_daemon_that_is_killed(daemon: Daemon) -> None:
    need("node")
    with subprocess.Popen(
        ["node", "client.mjs"], cwd=EXAMPLES, env=environment(daemon), stdin=subprocess.PIPE
    ) as node:
        try:
            assert node.stdin is not None
            for turn in range(3):
                begin = 20_000 * turn
                node.stdin.writelines(b"%d\n" % (begin + number) for number in range(20_000))
                node.stdin.flush()
                eventually(
                    lambda begin=begin: (  # type: ignore[misc]
                        (daemon.data / "node").exists() and len(daemon.values("node")) > begin
                    )
                )
                daemon.kill()
                daemon.start()
            node.stdin.close()
            assert node.wait(PATIENCE_S) == 0
        finally:
            node.kill()
    assert chosen(daemon, "node", "message") == [(str(number),) for number in range(60_000)]


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        name = path.stem.replace("send_with_nc", "send_with_{tool}")
        assert name.replace("send_with_socat", "send_with_{tool}") in tests, path


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed here")


def help_of(tool: str) -> str:
    done = subprocess.run([tool, "-h"], capture_output=True, check=False, timeout=60)
    return (done.stdout + done.stderr).decode()
