"""OTLP over HTTP with a real daemon: 200 means on disk, and all else says what to do."""

import concurrent.futures
import contextlib
import gzip
import http.client
import itertools
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.ports import free_port
from tests.unit.test_otlp import in_protobuf, request, value_of

LISTEN = """
[[listen]]
path = "{root}/otlp"
protocol = "otlp"
stream = "otel"
[[network]]
address = "127.0.0.1:{port}"
protocol = "otlp"
stream = "otel"
"""
JSON, PROTOBUF = "application/json", "application/x-protobuf"
HEAD = b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Otlp:
    """A daemon with both listeners, and requests to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "otlp"
        self.port = free_port()
        self.daemon = Daemon(root)

    def start(self, config: str = "") -> "Otlp":
        listen = LISTEN.format(root=self.root, port=self.port)
        self.daemon.config.write_text(config + listen)
        self.daemon.start()
        eventually(lambda: "listening" in self.daemon.events())
        return self

    def post(
        self,
        body: bytes,
        content_type: str = JSON,
        *,
        method: str = "POST",
        path: str = "/v1/logs",
        over_tcp: bool = False,
        **headers: str,
    ) -> Answer:
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
            if over_tcp
            else UnixConnection(self.path)
        )
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Content-Type": content_type} | named)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def raw(self, data: bytes) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.path))
        connection.sendall(data)
        return connection

    def messages(self) -> list[str]:
        return [record.get("message", "") for record in self.daemon.records("otel")]


@pytest.fixture
def otlp(root: Path) -> Iterator[Otlp]:
    made = Otlp(root)
    try:
        yield made
    finally:
        made.daemon.close()


def of(*texts: str) -> dict[str, Any]:
    return request(*({"body": value_of(text)} for text in texts))


def in_json(*texts: str) -> bytes:
    return json.dumps(of(*texts)).encode()


def rest(connection: socket.socket) -> bytes:
    """All that is still to come, until the daemon closes the connection."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


@pytest.mark.parametrize("over_tcp", [False, True])
def test_what_is_answered_with_200_is_on_disk_in_both_encodings(
    otlp: Otlp, *, over_tcp: bool
) -> None:
    otlp.start()
    answer = otlp.post(in_json("a", "b"), over_tcp=over_tcp)
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["Content-Type"] == JSON
    answer = otlp.post(in_protobuf(of("c")), PROTOBUF, over_tcp=over_tcp)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"] == PROTOBUF
    otlp.daemon.kill()
    records = otlp.daemon.records("otel")
    assert [record["message"] for record in records] == ["a", "b", "c"]
    for record in records:
        assert record.get("_addr") == ("127.0.0.1" if over_tcp else None)
        assert record.get("_pid") == (None if over_tcp else os.getpid())
        assert record.get("_uid") == (None if over_tcp else os.geteuid())


def test_a_record_that_cannot_be_decoded_is_rejected_and_the_others_are_on_disk(otlp: Otlp) -> None:
    otlp.start()
    said = request({"body": value_of("a")}, {"timeUnixNano": "soon"}, {"body": value_of("b")})
    answer = otlp.post(json.dumps(said).encode())
    assert answer.status == 200
    partial = answer.said["partialSuccess"]
    assert partial["rejectedLogRecords"] in (1, "1")
    assert "1 cannot be decoded: the request has 'soon'" in partial["errorMessage"]
    answer = otlp.post(in_protobuf(of("c", "bad", "d")).replace(b"bad", b"b\xffd"), PROTOBUF)
    assert (answer.status, answer.body != b"") == (200, True)
    otlp.daemon.kill()
    assert otlp.messages() == ["a", "b", "c", "d"]
    logged = [each for each in otlp.daemon.log() if each["event"] == "malformed_input"]
    assert [each["records"] for each in logged] == [1, 1]


def test_a_connection_serves_many_requests(otlp: Otlp) -> None:
    otlp.start()
    connection = UnixConnection(otlp.path)
    for number in range(20):
        connection.request("POST", "/v1/logs", in_json(str(number)), {"Content-Type": JSON})
        assert Answer(connection.getresponse()).status == 200
    connection.close()
    assert otlp.messages() == [str(number) for number in range(20)]


def test_gzip_is_decompressed_and_no_more_than_a_request_may_have(otlp: Otlp) -> None:
    otlp.start("[limits]\nmax_request = '100KiB'\n")
    whole = gzip.compress(in_json("a"))
    assert otlp.post(whole, Content_Encoding="gzip").status == 200
    members = gzip.compress(in_json("b")[:20]) + gzip.compress(in_json("b")[20:])
    assert otlp.post(members, Content_Encoding="gzip").status == 200
    assert otlp.post(whole[:-5], Content_Encoding="gzip").status == 400
    assert otlp.post(b"not gzip", Content_Encoding="gzip").status == 400
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100 * 1024
    before = otlp.daemon.peak_memory_bytes()
    answer = otlp.post(bomb, Content_Encoding="gzip")
    assert answer.status == 413
    assert "max_request" in answer.said["message"]
    assert otlp.daemon.peak_memory_bytes() - before < 20 * 1024 * 1024
    nothing = gzip.compress(b"") * 10_000  # decompresses to nothing, however long it is
    assert otlp.post(nothing, Content_Encoding="gzip").status == 413
    assert otlp.messages() == ["a", "b"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"body": b"{"}, 400),
        ({"body": b"\xff", "content_type": PROTOBUF}, 400),
        ({"body": b"x", "content_type": "text/plain"}, 415),
        ({"body": b"x", "Content_Encoding": "br"}, 415),
        ({"body": b"x", "path": "/v1/traces"}, 404),
        ({"body": b"", "method": "GET"}, 405),
        ({"body": b" " * 20_000_000}, 413),
    ],
)
def test_a_request_that_is_none_is_told_why(otlp: Otlp, said: Any, status: int) -> None:
    otlp.start()
    answer = otlp.post(**said)
    assert answer.status == status
    if said.get("content_type") == PROTOBUF:
        assert answer.headers["Content-Type"] == PROTOBUF
        assert answer.body.startswith(b"\x08\x03\x12")  # a google.rpc.Status
    else:
        assert answer.said["message"]
    assert answer.headers["Retry-After"] is None
    assert otlp.post(in_json("a")).status == 200
    assert otlp.messages() == ["a"]


def test_records_that_are_too_large_are_a_partial_success(otlp: Otlp) -> None:
    otlp.start("[limits]\nmax_record = '1KiB'\n")
    answer = otlp.post(in_json("a", "x" * 2000, "b"))
    assert answer.status == 200
    assert answer.said["partialSuccess"]["rejectedLogRecords"] == "1"
    assert "max_record" in answer.said["partialSuccess"]["errorMessage"]
    assert otlp.messages() == ["a", "b"]
    assert otlp.post(in_json("x" * 2000)).status == 200
    eventually(lambda: otlp.daemon.events().count("record_too_large") == 2)


def test_a_quota_that_drops_is_a_partial_success(otlp: Otlp) -> None:
    otlp.start("[stream.otel.quota]\nrecords_per_s = 1\nburst = '2s'\nover = 'drop'\n")
    answer = otlp.post(in_json(*map(str, range(10))))
    assert answer.status == 200
    refused = int(answer.said["partialSuccess"]["rejectedLogRecords"])
    assert 0 < refused <= 8  # fewer on a machine so slow that a second passes meanwhile
    assert len(otlp.messages()) == 10 - refused
    assert otlp.messages()[:2] == ["0", "1"]


def test_a_quota_that_blocks_says_when_to_come_again(otlp: Otlp) -> None:
    otlp.start("[stream.otel.quota]\nrecords_per_s = 1\nburst = '1s'\n")
    assert otlp.post(in_json(*map(str, range(30)))).status == 200
    answer = otlp.post(in_json("later"))
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert answer.said["code"] == 8
    assert "later" not in otlp.messages()


def test_a_stream_that_fails_is_answered_with_503_until_it_works_again(otlp: Otlp) -> None:
    otlp.start("[limits]\nstall_timeout = '1s'\n[commit]\nretry_max = '100ms'\n")
    in_the_way = otlp.daemon.data / "otel"
    in_the_way.write_text("not a directory")
    answer = otlp.post(in_json("a"))
    assert answer.status == 503
    assert "may be stored" in answer.said["message"]
    answer = otlp.post(in_json("b"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    in_the_way.unlink()
    tries = map(str, itertools.count())  # an unanswered one may be stored too
    eventually(lambda: otlp.post(in_json(next(tries))).status == 200, "the stream to work")
    assert otlp.messages()[0] == "a"  # it was queued, and says so
    assert "b" not in otlp.messages()


def test_memory_that_is_full_is_answered_with_503(otlp: Otlp) -> None:
    otlp.start(
        "[limits]\nmax_record = '64KiB'\nmax_pending = '256KiB'\nmax_request = '64KiB'\n"
        "max_pending_stream = '256KiB'\nuid_percent = 50\n"
    )
    # Bodies that are not complete take memory too.
    size = 60_000
    with_length = HEAD + b"Content-Length: %d\r\n\r\n" % (size + 10)
    with contextlib.ExitStack() as connections:
        slow = [connections.enter_context(otlp.raw(with_length + b" " * size)) for _ in range(8)]
        answered = eventually(lambda: select.select(slow, [], [], 0)[0], "one to be refused")
        assert len(answered) < len(slow)
        answer = rest(answered[0])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
    eventually(lambda: otlp.post(in_json("b")).status == 200, "memory")
    assert otlp.messages() == ["b"]


def test_a_body_that_takes_too_long_is_ended_and_harms_nobody(otlp: Otlp) -> None:
    otlp.start("[limits]\nstall_timeout = '3s'\n")
    with otlp.raw(HEAD + b"Content-Length: 100\r\n\r\n{") as slow:
        assert otlp.post(in_json("a")).status == 200
        assert rest(slow).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_takes_too_long_is_ended(otlp: Otlp) -> None:
    otlp.start("[limits]\nhello_timeout = '500ms'\n")
    with otlp.raw(b"POST /v1/logs HT") as slow:
        assert rest(slow) == b""
    eventually(lambda: "hello_timeout" in otlp.daemon.events())


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        HEAD + b"X: y\r\n" * 1000 + b"\r\n",
        b"POST /" + b"v" * 100_000,
        b'{"_hello":1}\n',
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_one_request_for_all_is_refused_and_ends_the_connection(
    otlp: Otlp, sent: bytes
) -> None:
    otlp.start()
    smuggled = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(in_json("x")), in_json("x"))
    try:
        with otlp.raw(sent + smuggled) as connection:
            assert rest(connection).startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    except (ConnectionResetError, BrokenPipeError):
        pass  # it did not even read all of it
    assert otlp.post(in_json("a")).status == 200
    assert otlp.messages() == ["a"]
    for line in otlp.daemon.log_path.read_text().splitlines():
        json.loads(line)  # nobody else writes there


def test_chunked_bodies_and_a_client_that_waits_for_continue_are_served(otlp: Otlp) -> None:
    otlp.start()
    body = in_json("a")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (body[:7], body[7:]))
    end = b"Connection: close\r\n"
    with otlp.raw(
        HEAD + end + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    ) as one:
        assert rest(one).startswith(b"HTTP/1.1 200 ")
    expects = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with otlp.raw(HEAD + end + expects) as two:
        assert two.recv(100).startswith(b"HTTP/1.1 100 ")
        two.sendall(body)
        assert rest(two).startswith(b"HTTP/1.1 200 ")
    assert otlp.messages() == ["a", "a"]


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", b"HTTP/1.1 200 "),
        (HEAD + b"Content-Length: 2\r\n\r\n{}" + HEAD, b"HTTP/1.1 200 "),
        (HEAD + b"Content-Length: 3\r\n\r\n{}", b""),
    ],
)
def test_a_client_that_sends_no_more_gets_its_answer(
    otlp: Otlp, sent: bytes, answered: bytes
) -> None:
    otlp.start('[limits]\nstall_timeout = "1h"\n')
    for pause in (False, True):
        with otlp.raw(sent[: len(sent) // 2] if pause else sent) as connection:
            if pause:
                connection.sendall(sent[len(sent) // 2 :])
            connection.shutdown(socket.SHUT_WR)
            assert rest(connection)[: len(answered) or None] == answered


def test_a_hundred_requests_at_once_are_all_answered(otlp: Otlp) -> None:
    otlp.start()
    start = threading.Barrier(100)

    def post(number: int) -> int:
        start.wait(PATIENCE_S)
        return otlp.post(in_json(str(number))).status

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        assert set(pool.map(post, range(100))) == {200}
    assert sorted(otlp.messages(), key=int) == [str(number) for number in range(100)]


def test_a_long_request_is_stored_whole_while_others_are_served(otlp: Otlp) -> None:
    otlp.start()
    texts = [f"{number} {'x' * 100}" for number in range(20_000)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        long = pool.submit(otlp.post, in_protobuf(of(*texts)), PROTOBUF)
        while not long.done():
            assert otlp.post(in_json("short")).status == 200
    assert long.result().status == 200
    assert [text for text in otlp.messages() if text != "short"] == texts


def test_a_stop_answers_what_is_complete_and_refuses_the_rest(otlp: Otlp) -> None:
    otlp.start()
    idle = UnixConnection(otlp.path)
    idle.request("POST", "/v1/logs", in_json("a"), {"Content-Type": JSON})
    assert Answer(idle.getresponse()).status == 200
    with otlp.raw(HEAD + b"Content-Length: 100\r\n\r\n{") as unfinished:
        eventually(lambda: otlp.post(in_json("b")).status == 200)
        assert otlp.daemon.stop() == 0
        assert rest(unfinished).startswith(b"HTTP/1.1 503 ")
    idle.close()
    assert otlp.messages() == ["a", "b"]


def exporting(
    endpoint: str, compression: Compression, export: Callable[[logging.Logger], None]
) -> bool:
    """What the real SDK does with what a logger logs; whether all of it was exported."""
    exporter = OTLPLogExporter(endpoint=endpoint, compression=compression)
    provider = LoggerProvider(resource=Resource({"service.name": "web"}), shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=50))
    logger = logging.getLogger(f"app.{endpoint}")
    handler = LoggingHandler(logger_provider=provider)
    logger.addHandler(handler)
    try:
        export(logger)
        return bool(provider.force_flush(PATIENCE_S * 1000))
    finally:
        logger.removeHandler(handler)
        provider.shutdown()


@pytest.mark.filterwarnings("ignore:.LoggingHandler.:DeprecationWarning")
@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_exporter_for_python_is_served(otlp: Otlp, compression: Compression) -> None:
    otlp.start()

    def export(logger: logging.Logger) -> None:
        for number in range(1000):
            logger.warning("hello %d", number, extra={"user.id": number})
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("failed")

    endpoint = f"http://127.0.0.1:{otlp.port}/v1/logs"
    assert exporting(endpoint, compression, export)
    records = otlp.daemon.records("otel")
    assert [record["message"] for record in records[:-1]] == [f"hello {n}" for n in range(1000)]
    assert records[7]["level"] == "warning"
    assert records[7]["attributes"]["user.id"] == 7
    assert records[7]["resource"] == {"service.name": "web"}
    assert records[-1]["level"] == "error"
    assert records[-1]["attributes"]["exception.type"] == "ValueError"


def test_all_that_was_answered_with_200_survives_kills_under_load(otlp: Otlp) -> None:
    otlp.start()
    accepted: list[str] = []
    done = threading.Event()

    def send(name: int) -> None:
        number = 0
        while not done.is_set():
            text = f"{name}-{number}"
            try:
                if otlp.post(in_json(text)).status == 200:
                    accepted.append(text)
                    number += 1
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)  # the client's own pause; it sends the same again

    senders = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    for each in senders:
        each.start()
    try:
        for kills in range(1, 6):
            eventually(lambda: len(accepted) >= 30 * kills, "answers")  # noqa: B023
            otlp.daemon.kill()
            otlp.daemon.start()
    finally:
        done.set()
        for each in senders:
            each.join(PATIENCE_S)
    otlp.daemon.kill()
    assert set(accepted) <= set(otlp.messages())


def test_a_daemon_without_such_a_listener_imports_neither_package(daemon: Daemon) -> None:
    assert daemon.process is not None
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "aiohttp" not in maps
    assert "grpc" not in maps
    assert "google" not in maps
