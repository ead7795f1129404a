"""OTLP over gRPC with a real daemon and the exporter of OpenTelemetry's SDK for Python."""

import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_otlp_http import of, rest
from tests.integrations.programs import needs_node_modules, program, run_in_node
from tests.ports import free_port
from tests.unit.test_otlp import in_protobuf

LISTEN = """
[[listen]]
path = "{root}/grpc"
protocol = "otlp-grpc"
stream = "otel"
[[network]]
address = "127.0.0.1:{port}"
protocol = "otlp-grpc"
stream = "otel"
"""


class Otlp:
    """A daemon with both listeners, and channels to it."""

    def __init__(self, root: Path, open_files_max: int | None = None) -> None:
        self.root = root
        self.port = free_port()
        self.daemon = Daemon(root, open_files_max=open_files_max)
        self.unix = f"unix:{root}/grpc"
        self.tcp = f"127.0.0.1:{self.port}"
        self._channels: list[grpc.Channel] = []

    def start(self, config: str = "") -> "Otlp":
        self.daemon.config.write_text(config + LISTEN.format(root=self.root, port=self.port))
        self.daemon.start()
        eventually(lambda: "listening" in self.daemon.events())
        return self

    def export(self, *texts: str, target: str = "", **options: Any) -> ExportLogsServiceResponse:
        channel = grpc.insecure_channel(target or self.unix, **options)
        self._channels.append(channel)
        request = ExportLogsServiceRequest.FromString(in_protobuf(of(*texts)))
        export = LogsServiceStub(channel).Export
        response: ExportLogsServiceResponse = export(
            request, timeout=PATIENCE_S, wait_for_ready=True
        )
        return response

    def refusal(self, *texts: str, **options: Any) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as refused:
            self.export(*texts, **options)
        return refused.value

    def raw(self, data: bytes) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(f"{self.root}/grpc")
        connection.sendall(data)
        return connection

    def messages(self) -> list[str]:
        return [record.get("message", "") for record in self.daemon.records("otel")]

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.daemon.close()


@pytest.fixture
def otlp(root: Path) -> Iterator[Otlp]:
    made = Otlp(root)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("over_tcp", [False, True])
def test_what_is_answered_is_on_disk_and_says_who_sent_it(otlp: Otlp, *, over_tcp: bool) -> None:
    otlp.start()
    target = otlp.tcp if over_tcp else otlp.unix
    response = otlp.export("a", "b", target=target)
    assert not response.HasField("partial_success")
    otlp.daemon.kill()
    records = otlp.daemon.records("otel")
    assert [record["message"] for record in records] == ["a", "b"]
    assert {record.get("_addr") for record in records} == {"127.0.0.1" if over_tcp else None}
    assert {record.get("_pid") for record in records} == {None if over_tcp else os.getpid()}


def test_what_is_not_stored_is_a_partial_success(otlp: Otlp) -> None:
    otlp.start("[limits]\nmax_record = '1KiB'\n")
    response = otlp.export("a", "x" * 2000)
    assert response.partial_success.rejected_log_records == 1
    assert "max_record" in response.partial_success.error_message
    assert otlp.messages() == ["a"]


def test_a_quota_says_when_to_come_again(otlp: Otlp) -> None:
    otlp.start("[stream.otel.quota]\nrecords_per_s = 1\nburst = '1s'\n")
    otlp.export(*map(str, range(30)))
    refused = otlp.refusal("later")
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (details,) = [value for key, value in refused.trailing_metadata() if key.endswith("-bin")]
    retry = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(retry)
    assert 1 <= retry.retry_delay.seconds <= 30


def test_a_stream_that_fails_is_unavailable_until_it_works_again(otlp: Otlp) -> None:
    otlp.start("[limits]\nstall_timeout = '1s'\n[commit]\nretry_max = '100ms'\n")
    in_the_way = otlp.daemon.data / "otel"
    in_the_way.write_text("not a directory")
    for text in ("a", "b"):
        assert otlp.refusal(text).code() is grpc.StatusCode.UNAVAILABLE
    in_the_way.unlink()

    tries = map(str, itertools.count())  # one that failed may be stored too

    def works() -> bool:
        try:
            otlp.export(next(tries))
        except grpc.RpcError:
            return False
        return True

    eventually(works, "the stream to work")
    assert otlp.messages()[0] == "a"
    assert "b" not in otlp.messages()


def test_a_request_that_is_too_large_or_a_bomb_is_refused(otlp: Otlp) -> None:
    otlp.start("[limits]\nmax_request = '100KiB'\n")
    refused = otlp.refusal("x" * 200_000)
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    before = otlp.daemon.peak_memory_bytes()
    refused = otlp.refusal("x" * 50_000_000, compression=grpc.Compression.Gzip)
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert otlp.daemon.peak_memory_bytes() - before < 30 * 1024 * 1024
    otlp.export("x" * 90_000, compression=grpc.Compression.Gzip)
    assert len(otlp.messages()) == 1


def test_bytes_that_are_no_request_are_invalid(otlp: Otlp) -> None:
    otlp.start()
    with grpc.insecure_channel(otlp.unix) as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff", timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        traces = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.RpcError) as refused:
            traces(b"", timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("sent", [b"POST / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"PRI *"])
def test_a_connection_that_does_not_speak_it_is_ended(otlp: Otlp, sent: bytes) -> None:
    otlp.start("[limits]\nhello_timeout = '3s'\n")
    with otlp.raw(sent) as connection:
        rest(connection)
    otlp.export("a")
    assert otlp.messages() == ["a"]


def test_a_request_that_takes_too_long_ends_its_connection(otlp: Otlp) -> None:
    otlp.start("[limits]\nstall_timeout = '3s'\n")
    settings = (0).to_bytes(3, "big") + b"\x04\x00" + bytes(4)
    headers = (0).to_bytes(3, "big") + b"\x01\x00" + (1).to_bytes(4, "big")
    with otlp.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers) as slow:
        otlp.export("a")
        rest(slow)
    otlp.export("b")
    assert otlp.messages() == ["a", "b"]


def test_connections_that_come_and_go_without_end_leave_the_daemon_running(root: Path) -> None:
    otlp = Otlp(root, open_files_max=256)
    try:
        otlp.start()
        for _ in range(4):
            connections = [otlp.raw(b"") for _ in range(250)]
            for connection in connections:
                connection.close()
        otlp.export("afterwards")
        assert [each["message"] for each in otlp.daemon.values("otel")] == ["afterwards"]
        # There are descriptors for as many connections as there may be, and for commits.
        assert not {"accept_failed", "connection_failed"} & set(otlp.daemon.events())
    finally:
        otlp.close()


def test_a_hundred_requests_at_once_are_all_answered(otlp: Otlp) -> None:
    otlp.start()
    with grpc.insecure_channel(otlp.unix) as channel:
        stub = LogsServiceStub(channel)
        calls = [
            stub.Export.future(
                ExportLogsServiceRequest.FromString(in_protobuf(of(str(number)))),
                timeout=PATIENCE_S,
                wait_for_ready=True,
            )
            for number in range(100)
        ]
        for each in calls:
            each.result()
    assert sorted(otlp.messages(), key=int) == [str(number) for number in range(100)]


def test_all_that_was_answered_survives_kills_under_load(otlp: Otlp) -> None:
    otlp.start()
    accepted: list[str] = []
    done = threading.Event()

    def send(name: int) -> None:
        number = 0
        with grpc.insecure_channel(otlp.unix, options=[("grpc.max_reconnect_backoff_ms", 100)]) as (
            channel
        ):
            export = LogsServiceStub(channel).Export
            while not done.is_set():
                text = f"{name}-{number}"
                request = ExportLogsServiceRequest.FromString(in_protobuf(of(text)))
                try:
                    export(request, timeout=2, wait_for_ready=True)
                except grpc.RpcError:
                    continue  # the same again
                accepted.append(text)
                number += 1

    senders = [threading.Thread(target=send, args=(name,)) for name in range(3)]
    for each in senders:
        each.start()
    try:
        for kills in range(1, 4):
            eventually(lambda: len(accepted) >= 30 * kills, "answers")  # noqa: B023
            otlp.daemon.kill()
            otlp.daemon.start()
    finally:
        done.set()
        for each in senders:
            each.join(PATIENCE_S)
    otlp.daemon.kill()
    assert set(accepted) <= set(otlp.messages())


def test_a_stop_answers_and_leaves_no_directory_behind(
    otlp: Otlp, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = root / "own"  # other daemons may start and stop meanwhile
    own.mkdir()
    monkeypatch.setenv("TMPDIR", str(own))
    otlp.start()
    otlp.export("a")
    otlp.export("b", target=otlp.tcp)
    assert list(own.iterdir())
    assert otlp.daemon.stop() == 0
    assert otlp.messages() == ["a", "b"]
    assert not list(own.iterdir())


@pytest.mark.parametrize("over_tcp", [False, True])
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_the_exporter_for_python_is_served_also_over_a_restart(
    otlp: Otlp, compression: grpc.Compression, *, over_tcp: bool
) -> None:
    otlp.start()
    target = f"http://{otlp.tcp}" if over_tcp else otlp.unix
    exporter = OTLPLogExporter(endpoint=target, insecure=True, compression=compression)
    provider = LoggerProvider(resource=Resource({"service.name": "web"}), shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=50))
    logger = provider.get_logger("app", "1.0")

    def log(text: str) -> None:
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=text,
                attributes={"n": 7},
            )
        )

    for number in range(1000):
        log(f"{number}")
    assert provider.force_flush(PATIENCE_S * 1000)
    eventually(lambda: len(otlp.messages()) == 1000)
    otlp.daemon.kill()
    log("while it is away")
    starting = threading.Timer(0.3, otlp.daemon.start)
    starting.start()
    assert provider.force_flush(PATIENCE_S * 1000)
    starting.join(PATIENCE_S)
    eventually(otlp.daemon.listens)
    eventually(lambda: "while it is away" in otlp.messages(), "the record to be sent again")
    provider.shutdown()
    records = otlp.daemon.records("otel")
    assert {record["message"] for record in records[:1000]} == {str(n) for n in range(1000)}
    assert records[0]["level"] == "warning"
    assert records[0]["scope"] == {"name": "app", "version": "1.0"}
    assert records[0]["attributes"] == {"n": 7}


NODE = """
const { LoggerProvider, BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const [name, url] = process.argv.slice(2);
const { OTLPLogExporter } = require("@opentelemetry/exporter-logs-otlp-" + name);
const exporter = new OTLPLogExporter({ url });
const provider = new LoggerProvider({ processors: [new BatchLogRecordProcessor({ exporter })] });
const logger = provider.getLogger("app", "1.0");
for (let n = 0; n < 100; n++) {
  logger.emit({ severityNumber: 13, body: `${name} ${n}`, attributes: { n, list: [1, "a"] } });
}
provider.forceFlush().then(() => provider.shutdown());
"""
EXPORTERS = ("http", "proto", "grpc")


@needs_node_modules()
def test_the_exporters_for_node_are_served_in_each_encoding(otlp: Otlp, root: Path) -> None:
    path = root / "send.js"
    path.write_text(NODE)
    port = free_port()
    otlp.start(f"""
[[network]]
address = "127.0.0.1:{port}"
protocol = "otlp"
stream = "otel"
""")
    web = f"http://127.0.0.1:{port}/v1/logs"
    for name, url in zip(EXPORTERS, (web, web, f"unix://{root}/grpc"), strict=True):
        done = subprocess.run(
            [program("node"), path, name, url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | run_in_node() | {"OTEL_EXPORTER_OTLP_INSECURE": "true"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    records = otlp.daemon.records("otel")
    sent = [f"{name} {n}" for name in EXPORTERS for n in range(100)]
    assert [record["message"] for record in records] == sent
    assert records[7]["attributes"] == {"n": 7, "list": [1, "a"]}
    assert {record["level"] for record in records} == {"warning"}
