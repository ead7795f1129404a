"""The recipes of the page for servers and relays run, and store what it shows."""

import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S, eventually
from tests.integrations.conftest import Host
from tests.integrations.programs import needs, program, unpacked
from tests.ports import free_port


def is_answering(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, path: str) -> int:
    """Asks a server on this host. Returns the status of the answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"User-Agent": 'a "quoted" agent'}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


NGINX = """
{main}
daemon off;
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {root}/nginx-body;
    proxy_temp_path {root}/nginx-proxy;
    fastcgi_temp_path {root}/nginx-fastcgi;
    uwsgi_temp_path {root}/nginx-uwsgi;
    scgi_temp_path {root}/nginx-scgi;
    {recipe}
    server {{
        listen 127.0.0.1:{port};
        root {root}/pages;
    }}
}}
"""


@contextmanager
def nginx(host: Host, recipe: str) -> Iterator[int]:
    """nginx with this part in its configuration, and one page. Gives its port."""
    server = program("nginx")
    pages = host.root / "pages"
    pages.mkdir()
    (pages / "here").write_text("yes")
    port = free_port()
    main = "user root;" if is_root() else ""
    text = NGINX.format(main=main, root=host.root, recipe=recipe, port=port)
    path = host.write("nginx.conf", text)
    with host.running(server, "-p", host.root, "-e", "stderr", "-c", path):
        eventually(lambda: is_answering(port), "nginx to answer")
        yield port


def is_root() -> bool:
    return Path("/proc/self").owner() == "root"


@needs("nginx")
def test_nginx(host: Host) -> None:
    shown = host.recipe("nginx")
    with nginx(host, shown.code("nginx")) as port:
        assert ask(port, "/here") == 200
        assert ask(port, "/missing") == 404
        host.has("syslog", shown)


@needs("nginx")
def test_nginx_with_fields(host: Host) -> None:
    shown = host.recipe("nginx with fields")
    with nginx(host, shown.code("nginx")) as port:
        assert ask(port, "/here?q=%22") == 200
        host.has("syslog", shown)


@needs("nginx")
def test_nginx_goes_on_after_a_restart_of_the_daemon(host: Host) -> None:
    with nginx(host, host.recipe("nginx with fields").code("nginx")) as port:
        assert ask(port, "/before") == 404
        eventually(lambda: host.daemon.values("syslog"))
        host.daemon.kill()
        assert ask(port, "/meanwhile") == 404
        host.start()
        assert ask(port, "/after") == 404
        # Of the one meanwhile it may have logged late what it would have lost.
        eventually(lambda: host.daemon.values("syslog")[-1]["uri"] == "/after")
    assert host.daemon.values("syslog")[0]["uri"] == "/before"


FRONTEND = """
    timeout client 20s
    timeout connect 20s
    timeout server 20s
{format}

frontend front
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string yes
"""


@contextmanager
def haproxy(host: Host, start: str, log_format: str = "") -> Iterator[int]:
    """haproxy with this start of its configuration. Gives its port."""
    server = program("haproxy")
    port = free_port()
    path = host.write("haproxy.cfg", start + FRONTEND.format(port=port, format=log_format))
    with host.running(server, "-db", "-f", path):
        eventually(lambda: is_answering(port), "haproxy to answer")
        yield port


def served(host: Host) -> list[str]:
    """The messages about requests: haproxy also reports its start, and connections without one."""
    return [
        value["message"] for value in host.daemon.values("syslog") if "GET /" in value["message"]
    ]


@needs("haproxy")
def test_haproxy(host: Host) -> None:
    shown = host.recipe("haproxy")
    with haproxy(host, shown.code("haproxy")) as port:
        assert ask(port, "/here") == 200
        eventually(lambda: served(host), "the request")
        host.has_among("syslog", shown)


@needs("haproxy")
def test_haproxy_with_fields(host: Host) -> None:
    shown = host.recipe("haproxy with fields")
    start = host.recipe("haproxy").code("haproxy").replace("    option httplog\n", "")
    with haproxy(host, start, "    " + shown.code("haproxy")) as port:
        assert ask(port, "/here?q=%22") == 200
        host.has_among("syslog", shown)


@needs("haproxy")
def test_haproxy_goes_on_after_a_restart_of_the_daemon(host: Host) -> None:
    with haproxy(host, host.recipe("haproxy").code("haproxy")) as port:
        assert ask(port, "/before") == 200
        eventually(lambda: len(served(host)) == 1)
        host.daemon.kill()
        assert ask(port, "/meanwhile") == 200
        host.start()
        assert ask(port, "/after") == 200
        eventually(lambda: "GET /after" in served(host)[-1])
    assert "GET /before" in served(host)[0]


@needs("haproxy")
def test_haproxy_cuts_what_is_longer_than_its_length(host: Host) -> None:
    path = "/" + "x" * 3000
    start = host.recipe("haproxy").code("haproxy")
    with haproxy(host, start) as port:
        assert ask(port, path) == 200
        eventually(lambda: served(host), "a message that is not cut")
    with haproxy(host, start.replace(" len 8192", "")) as port:
        assert ask(port, path) == 200
        eventually(lambda: len(served(host)) == 2, "a cut message")
    whole, cut = served(host)
    assert f"GET {path[:1000]}" in whole
    assert path not in whole  # the URI has its own limit
    assert 900 < len(cut) <= 1024 < len(whole)


@needs("haproxy")
def test_haproxy_in_a_chroot_finds_a_socket_inside_it(host: Host) -> None:
    if not is_root():
        pytest.skip("only root can chroot")
    path = host.sockets.relative_to("/")
    (host.root / "jail" / path).mkdir(parents=True)
    listen = f'[[listen]]\npath = "{host.root}/jail/{path}/log"\nprotocol = "syslog"\n'
    host.daemon.stop()
    with host.daemon.config.open("a") as config:
        config.write(listen + 'type = "datagram"\nstream = "jail"\n')
    host.start()
    start = host.recipe("haproxy").code("haproxy")
    start = start.replace("global\n", f"global\n    chroot {host.root}/jail\n", 1)
    with haproxy(host, start) as port:
        assert ask(port, "/here") == 200
        eventually(lambda: any('"GET /here' in v["message"] for v in host.daemon.values("jail")))
    assert host.daemon.values("syslog") == []


RSYSLOG = """
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{root}/in")
{recipe}
"""
SYSLOG_NG = """@version: {version}
options {{ time-reopen(1); keep-hostname(yes); }};
source s_src {{ unix-dgram("{root}/in"); }};
{recipe}
"""


@contextmanager
def rsyslog(host: Host) -> Iterator[None]:
    """rsyslog with the recipe, which takes what is sent to `in`."""
    relay = program("rsyslogd")
    modules = next(unpacked("usr/lib").glob("*/rsyslog"), None)
    assert modules is not None
    recipe = host.recipe("rsyslog").code("rsyslog")
    path = host.write("rsyslog.conf", RSYSLOG.format(root=host.root, recipe=recipe))
    with host.running(
        *(relay, "-n", "-C", "-f", path, "-M", modules, "-i", host.root / "rsyslog.pid")
    ):
        eventually((host.root / "in").exists, "rsyslog to listen")
        yield


@contextmanager
def syslog_ng(host: Host) -> Iterator[None]:
    """syslog-ng with the recipe, which takes what is sent to `in`."""
    relay = program("syslog-ng")
    modules = next(unpacked("usr/lib/syslog-ng").glob("[0-9]*"))
    recipe = host.recipe("syslog-ng").code("syslog-ng")
    text = SYSLOG_NG.format(version=modules.name, root=host.root, recipe=recipe)
    path = host.write("syslog-ng.conf", text)
    with host.running(
        *(relay, "-F", "--no-caps", "-f", path, f"--module-path={modules}"),
        *("-R", host.root / "persist", "-c", host.root / "control", "-p", host.root / "ng.pid"),
    ):
        eventually((host.root / "in").exists, "syslog-ng to listen")
        yield


def relay(host: Host, message: str) -> None:
    """Sends a message to the relay, as glibc would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(PATIENCE_S)
        sender.connect(str(host.root / "in"))
        sender.send(b"<12>Nov 23 20:00:00 backup[7]: " + message.encode())


def messages(host: Host) -> list[str]:
    return [value["message"] for value in host.daemon.values("syslog") if value["app"] == "backup"]


@needs("rsyslogd")
def test_rsyslog(host: Host) -> None:
    shown = host.recipe("rsyslog")
    with rsyslog(host):
        relay(host, "two\nlines")
        host.has_among("syslog", shown)


@needs("syslog-ng")
def test_syslog_ng(host: Host) -> None:
    shown = host.recipe("syslog-ng")
    with syslog_ng(host):
        relay(host, "two\nlines")
        host.has_among("syslog", shown)


@needs("rsyslogd")
def test_rsyslog_goes_on_after_a_restart_of_the_daemon(host: Host) -> None:
    with rsyslog(host):
        relay(host, "before")
        eventually(lambda: messages(host) == ["before"])
        host.daemon.kill()
        relay(host, "meanwhile")
        host.start()
        relay(host, "after")
        eventually(lambda: "after" in messages(host))
    assert messages(host)[0] == "before"


@needs("syslog-ng")
def test_syslog_ng_keeps_what_it_cannot_send_without_a_daemon(host: Host) -> None:
    with syslog_ng(host):
        relay(host, "before")
        eventually(lambda: messages(host) == ["before"])
        host.daemon.kill()
        for n in range(5):
            relay(host, f"meanwhile {n}")
        host.start()
        relay(host, "after")
        eventually(lambda: "after" in messages(host), "what was sent meanwhile")
    assert messages(host) == ["before", *(f"meanwhile {n}" for n in range(5)), "after"]


@needs("rsyslogd")
def test_rsyslog_waits_while_the_queue_of_the_socket_is_full(host: Host) -> None:
    with rsyslog(host):
        relay(host, "before")
        eventually(lambda: messages(host) == ["before"])
        process = host.daemon.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            # More than wait in the queue, whatever the kernel's limit; and more than rsyslog has
            # taken to itself when it blocks.
            count = 600
            for n in range(count):
                relay(host, f"meanwhile {n}")
        finally:
            process.send_signal(signal.SIGCONT)
        eventually(lambda: len(messages(host)) > count, "what was sent meanwhile")
    assert messages(host) == ["before", *(f"meanwhile {n}" for n in range(count))]


@needs("nginx")
def test_nginx_cuts_a_long_error_and_no_access_record(host: Host) -> None:
    path = "/" + "x" * 6000
    with nginx(host, host.recipe("nginx").code("nginx")) as port:
        assert ask(port, path) in {404, 500}
        eventually(lambda: len(host.daemon.values("syslog")) == 2)
    error, access = host.daemon.values("syslog")
    assert path not in error["message"]
    assert 1500 < len(error["message"]) <= 2048
    assert f"GET {path} HTTP/1.1" in access["message"]
