"""OTLP from the network with a real daemon: TLS, limits for each address, connections that idle."""

import contextlib
import http.client
import ssl
import threading
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from logengine.intake.network import NETWORK_UID
from tests.daemon import PATIENCE_S, eventually
from tests.e2e.test_network import Authority, Make, Receiver, authority, ended, make, tls
from tests.e2e.test_otlp_http import HEAD, JSON, Answer, in_json, of, rest
from tests.ports import HOST
from tests.unit.test_otlp import in_protobuf

__all__ = ["authority", "make"]  # fixtures

HTTP, GRPC = "protocol = 'otlp'\n", "protocol = 'otlp-grpc'\n"


def post(connection: http.client.HTTPConnection, *texts: str) -> int:
    connection.request("POST", "/v1/logs", in_json(*texts), {"Content-Type": JSON})
    return Answer(connection.getresponse()).status


def export(channel: grpc.Channel, *texts: str) -> ExportLogsServiceResponse:
    request = ExportLogsServiceRequest.FromString(in_protobuf(of(*texts)))
    response: ExportLogsServiceResponse = LogsServiceStub(channel).Export(
        request, timeout=PATIENCE_S, wait_for_ready=True
    )
    return response


@contextlib.contextmanager
def over_tls(receiver: Receiver, context: ssl.SSLContext) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPSConnection(
        HOST, receiver.port, timeout=PATIENCE_S, context=context
    )
    with contextlib.closing(connection):
        yield connection


TEXTS = ["one", "x" * 100_000, "two"]


def test_a_request_over_http_and_tls_is_answered_when_it_is_on_disk(
    make: Make, authority: Authority
) -> None:
    receiver = make(said=HTTP + tls(authority))
    with over_tls(receiver, authority.client()) as connection:
        assert [post(connection, text, text) for text in TEXTS] == [200] * 3
    receiver.daemon.kill()
    assert receiver.messages() == [text for text in TEXTS for _ in range(2)]
    assert {record["_addr"] for record in receiver.daemon.records("network")} == {HOST}


def credentials(authority: Authority, name: str = "") -> grpc.ChannelCredentials:
    certificate, key = authority.issue(name) if name else (None, None)
    return grpc.ssl_channel_credentials(
        authority.path.read_bytes(),
        None if key is None else key.read_bytes(),
        None if certificate is None else certificate.read_bytes(),
    )


def test_a_request_over_grpc_and_tls_is_answered_when_it_is_on_disk(
    make: Make, authority: Authority
) -> None:
    receiver = make(said=GRPC + tls(authority, f"client_ca = '{authority.path}'"))
    where = f"{HOST}:{receiver.port}"
    with grpc.secure_channel(where, credentials(authority, "known")) as channel:
        for text in TEXTS:
            assert not export(channel, text, text).HasField("partial_success")
    with (
        grpc.secure_channel(where, credentials(authority)) as stranger,
        pytest.raises(grpc.RpcError) as refused,
    ):
        LogsServiceStub(stranger).Export(ExportLogsServiceRequest(), timeout=PATIENCE_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    receiver.daemon.kill()
    assert receiver.messages() == [text for text in TEXTS for _ in range(2)]
    assert {record["_addr"] for record in receiver.daemon.records("network")} == {HOST}


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_one_address_has_no_more_connections_of_requests_than_it_may(
    make: Make, protocol: str
) -> None:
    receiver = make(said=f"{protocol}max_per_address = 1")
    with receiver.connect() as mine:
        with receiver.connect() as one_more:
            assert ended(one_more)
        eventually(
            lambda: "too_many_network_connections" in receiver.daemon.events(),
            "the log, which a thread writes",
        )
        mine.settimeout(PATIENCE_S)
        if protocol == HTTP:
            mine.sendall(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
            assert rest(mine).startswith(b"HTTP/1.1 200")
    with grpc.insecure_channel(f"{HOST}:{receiver.port}") as channel:
        if protocol == GRPC:
            export(channel, "there is room again")


def test_a_connection_that_idles_is_ended_but_none_with_a_request_under_way(make: Make) -> None:
    receiver = make(said=f"{HTTP}idle_timeout = '3s'")
    with receiver.connect() as busy, receiver.connect() as idle:
        body = in_json("slow")
        busy.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
        assert ended(idle)
        busy.sendall(body[5:])
        assert rest(busy).startswith(b"HTTP/1.1 200")  # until it idles too
    receiver.has("slow")


def test_a_channel_that_idled_connects_again(make: Make) -> None:
    receiver = make(said=f"{GRPC}idle_timeout = '3s'")
    states: list[grpc.ChannelConnectivity] = []
    idle = threading.Event()

    def note(state: grpc.ChannelConnectivity) -> None:
        states.append(state)
        if state is grpc.ChannelConnectivity.IDLE and grpc.ChannelConnectivity.READY in states:
            idle.set()

    with grpc.insecure_channel(f"{HOST}:{receiver.port}") as channel:
        channel.subscribe(note)
        export(channel, "one")
        assert idle.wait(PATIENCE_S)
        export(channel, "two")
    receiver.has("one", "two")
    lines = receiver.daemon.logged("idle_connection_closed")
    assert {(each["addr"], each["uid"]) for each in lines} == {(HOST, NETWORK_UID)}


def test_a_stop_answers_what_it_took_over_tls_and_refuses_the_rest(
    make: Make, authority: Authority
) -> None:
    receiver = make(said=HTTP + tls(authority))
    accepted: list[str] = []
    begun = threading.Event()

    def send() -> None:
        with over_tls(receiver, authority.client()) as connection:
            for number in range(100_000):
                if post(connection, str(number)) != 200:
                    return
                accepted.append(str(number))
                if number == 20:
                    begun.set()

    def send_until_refused() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            send()

    sender = threading.Thread(target=send_until_refused)
    sender.start()
    assert begun.wait(PATIENCE_S)
    assert receiver.daemon.stop() == 0
    sender.join(PATIENCE_S)
    # An answer that did not arrive is no promise.
    assert receiver.messages()[: len(accepted)] == accepted
    assert len(receiver.messages()) <= len(accepted) + 1
