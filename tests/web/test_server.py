"""`logengine web` as a process: its sockets, its limits, its end."""

import contextlib
import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from logengine.web.server import CONNECTIONS_MAX
from tests.daemon import PATIENCE_S, eventually
from tests.reading.streams import line, write_stream
from tests.web.served import Served


@pytest.fixture
def data(root: Path) -> Path:
    write_stream(root / "data", "app", [line(n) for n in range(1, 6)])
    return root / "data"


def status_of(arguments: list[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "logengine", "web", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def over_unix(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        answer = b""
        # What refuses it does not read it.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(request)
            while piece := client.recv(65536):
                answer += piece
    return answer


REQUEST = b"GET /api/records HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_url_that_is_printed_opens_the_page_until_a_signal_ends_it(
    data: Path, number: signal.Signals
) -> None:
    with Served(data) as served:
        url = urlsplit(served.url)
        assert len(url.query) > len("token=") + 24
        assert url.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        connection.request("GET", f"/?{url.query}")
        assert connection.getresponse().status == 303
        connection.close()
        assert served.stop(number) == 0


def test_a_live_page_does_not_hold_up_the_end(data: Path, root: Path) -> None:
    path = root / "web"
    with Served(data, "--unix", str(path), "--no-token") as served:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = client.recv(1000)
            assert served.stop() == 0
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_two_servers_have_different_tokens(data: Path) -> None:
    with Served(data) as one, Served(data) as other:
        assert urlsplit(one.url).query != urlsplit(other.url).query


def test_a_unix_socket_is_only_for_its_user_and_needs_no_token(data: Path, root: Path) -> None:
    path = root / "web"
    with Served(data, "--unix", str(path), "--no-token") as served:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b'"rows"' in over_unix(path, REQUEST % b"localhost")
        assert b" 403 " in over_unix(path, REQUEST % b"evil.example")
        assert status_of(["--unix", str(path), "--no-token"])[0] == 2
        assert served.stop() == 0
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_used_again(data: Path, root: Path) -> None:
    path = root / "web"
    with Served(data, "--unix", str(path), "--no-token") as served:
        served.stop(signal.SIGKILL)
    assert path.exists()
    with Served(data, "--unix", str(path), "--no-token"):
        assert b'"rows"' in over_unix(path, REQUEST % b"localhost")


def test_a_port_needs_a_token(data: Path) -> None:
    status, text = status_of(["--no-token", "--data", str(data)])
    assert status == 2
    assert "--no-token needs --unix" in text


@pytest.mark.parametrize("name", ["logs.example:8514", "https://logs.example", "::1", "", "lögs"])
def test_a_name_that_no_browser_sends_is_an_error(data: Path, name: str) -> None:
    status, text = status_of(["--host", name, "--data", str(data)])
    assert status == 2
    (line,) = text.splitlines()
    assert "without a port" in line


def test_another_name_is_let_in_with_any_port(data: Path, root: Path) -> None:
    path = root / "web"
    hosts = ("--host", "Logs.example", "--host", "[fe80::1]")
    with Served(data, "--unix", str(path), "--no-token", *hosts):
        for host in (b"logs.example", b"logs.example:8514", b"LOGS.EXAMPLE:1", b"[fe80::1]:8514"):
            assert b" 200 " in over_unix(path, REQUEST % host)[:20]
        assert b" 403 " in over_unix(path, REQUEST % b"other.example")[:20]


def test_a_port_in_use_is_one_line(data: Path) -> None:
    with Served(data) as served:
        port = str(urlsplit(served.url).port)
        status, text = status_of(["--port", port, "--data", str(data)])
    assert status == 2
    assert text.splitlines()[-1] == (
        f"logengine: port {port} is in use; give another one with --port, or 0"
    )


def test_a_file_in_the_place_of_the_socket_is_kept(data: Path, root: Path) -> None:
    path = root / "file"
    path.write_text("mine")
    assert status_of(["--unix", str(path), "--data", str(data)])[0] == 2
    assert path.read_text() == "mine"


def test_there_are_only_so_many_connections(data: Path, root: Path) -> None:
    path = root / "web"
    with Served(data, "--unix", str(path), "--no-token"):
        with contextlib.ExitStack() as opened:
            for _ in range(CONNECTIONS_MAX):
                each = opened.enter_context(socket.socket(socket.AF_UNIX))
                each.connect(str(path))
                each.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert each.recv(64).startswith(b"HTTP/1.1 200 ")
            answer = over_unix(path, REQUEST % b"localhost")
        assert b" 200 " not in answer
        eventually(
            lambda: over_unix(path, REQUEST % b"localhost").startswith(b"HTTP/1.1 200 "),
            "connections to be free again",
        )


def test_strangers_who_hold_all_connections_give_way(data: Path, root: Path) -> None:
    with Served(data) as served, contextlib.ExitStack() as opened:
        url = urlsplit(served.url)
        strangers = []
        for _ in range(CONNECTIONS_MAX + 10):
            each = opened.enter_context(socket.create_connection(("127.0.0.1", url.port)))
            each.settimeout(PATIENCE_S)
            each.sendall(b"GET /api/records HTTP/1.1\r\nHost: localhost\r\n\r\n")
            strangers.append(each)
            assert each.recv(64).startswith(b"HTTP/1.1 403 ")
        ask = urllib.request.Request(
            f"http://127.0.0.1:{url.port}/api/records",
            headers={"Authorization": f"Bearer {url.query.removeprefix('token=')}"},
        )
        with urllib.request.urlopen(ask, timeout=PATIENCE_S) as answer:
            assert answer.status == 200


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_records_of_others_stay_so(data: Path, root: Path) -> None:
    write_stream(root / "data", "secret", [line(1, 1, ',"event":"for a group only"')])
    (data / "secret").chmod(0o700)
    for each in (root, data):
        each.chmod(0o755)
    served = [*(sys.executable, "-c", _AS_NOBODY), str(data)]
    done = subprocess.run(served, capture_output=True, text=True, timeout=60, check=True)
    assert "for a group only" not in done.stdout
    assert "cannot be read: Permission denied" in done.stdout
    assert "app:3" in done.stdout.splitlines()


_AS_NOBODY = """
import asyncio, os, pathlib, sys, threading
import logengine.reading.follower  # while it can be read: it may be in the home of root
from logengine.local_zone import local_now
from logengine.web.answers import Answers
from logengine.web.query import parse_query
os.setgid(65534), os.setuid(65534)
answers = Answers(pathlib.Path(sys.argv[1]))
print(answers.records(parse_query([], local_now()), threading.Event()))
following = answers.following(parse_query([("from", "app:3,secret:1")], local_now()), print)
print(next(iter(following)).cursor)
following.stop()
"""
