"""Routing of OTLP: a request whose records go to several streams is still answered as one."""

import contextlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_otlp_http import JSON, Answer, UnixConnection
from tests.unit.test_otlp import attributes, in_protobuf, request, value_of

CONFIG = """
[[listen]]
path = "{root}/otlp"
protocol = "otlp"
stream = "{{resource.service.name}}"
fallback = "otel"

[[listen]]
path = "{root}/grpc"
protocol = "otlp-grpc"
stream = "{{attributes.to}}"
fallback = "otel"

[[route]]
where = "level >= error"
stream = "errors"
"""


def records(*texts: str) -> dict[str, Any]:
    """A request with a record for each of `stream text` and, without a stream, ` text`."""
    split = [each.partition(" ") for each in texts]
    made = [
        {
            "body": value_of(text),
            "severityNumber": 17 if text == "broken" else 9,
            **({"attributes": attributes({"to": stream})} if stream else {}),
        }
        for stream, _, text in split
    ]
    return request(*made)


def of_services(**texts: list[str]) -> bytes:
    """A request with the records of several resources."""
    of_each = [
        request(
            *({"body": value_of(text)} for text in said),
            resource={"service.name": name},
        )["resourceLogs"]
        for name, said in texts.items()
    ]
    return json.dumps({"resourceLogs": [one for each in of_each for one in each]}).encode()


class Otlp:
    """A daemon that routes what comes by OTLP."""

    def __init__(self, root: Path, config: str) -> None:
        self.root = root
        self.daemon = Daemon(root, config + CONFIG.format(root=root))

    def post(self, body: bytes) -> Answer:
        with contextlib.closing(UnixConnection(self.root / "otlp")) as connection:
            connection.request("POST", "/v1/logs", body, {"Content-Type": JSON})
            return Answer(connection.getresponse())

    def export(self, *texts: str) -> ExportLogsServiceResponse:
        with grpc.insecure_channel(f"unix:{self.root}/grpc") as channel:
            response: ExportLogsServiceResponse = LogsServiceStub(channel).Export(
                ExportLogsServiceRequest.FromString(in_protobuf(records(*texts))),
                timeout=PATIENCE_S,
                wait_for_ready=True,
            )
            return response

    def messages(self, stream: str) -> list[str]:
        return [record["message"] for record in self.daemon.records(stream)]


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Otlp]]:
    with contextlib.ExitStack() as stack:

        def started(config: str = "") -> Otlp:
            otlp = Otlp(root, config)
            stack.callback(otlp.daemon.close)
            otlp.daemon.start()
            eventually(lambda: "listening" in otlp.daemon.events())
            return otlp

        yield started


def test_a_request_is_answered_when_its_records_are_on_disk_in_all_streams(
    start: Callable[..., Otlp],
) -> None:
    otlp = start()
    answer = otlp.post(of_services(Web=["a", "b"], db=["c"], **{"...": ["d"]}))
    assert (answer.status, answer.body) == (200, b"{}")
    otlp.export("x e", "x broken", " f", "y g", "x h")
    otlp.daemon.kill()
    expected = {"web": ["a", "b"], "db": ["c"], "otel": ["d", "f"]}
    expected |= {"x": ["e", "h"], "y": ["g"], "errors": ["broken"]}
    assert {name: otlp.messages(name) for name in expected} == expected


def test_records_that_are_not_stored_are_counted_over_all_streams(
    start: Callable[..., Otlp],
) -> None:
    otlp = start(
        "[limits]\nmax_record = '1KiB'\n"
        "[stream.x.quota]\nrecords_per_s = 1\nburst = '2s'\nover = 'drop'\n"
        "[stream.y.quota]\nrecords_per_s = 1\nburst = '1s'\nover = 'drop'\n"
    )
    otlp.export("y 0")
    # Of x, 2 of 3 are stored; of y, none; one is too long.
    response = otlp.export("x 1", "x 2", "x 3", "y 4", "z 5", "z " + "6" * 2000)
    refused = response.partial_success
    stored = len(otlp.messages("x")) + len(otlp.messages("y")) - 1
    assert stored < 4
    assert refused.rejected_log_records == 1 + 4 - stored
    assert "quota" in refused.error_message
    assert "max_record" in refused.error_message
    assert otlp.messages("z") == ["5"]


def test_a_request_for_a_stream_that_fails_stores_nothing_in_the_others_each_time_it_is_sent(
    start: Callable[..., Otlp],
) -> None:
    otlp = start("[limits]\nstall_timeout = '3s'\n[commit]\nretry_max = '100ms'\n")
    in_the_way = otlp.daemon.data / "bad"
    in_the_way.write_text("not a directory")
    both = of_services(bad=["a"], good=["b"])
    answer = otlp.post(both)
    assert answer.status == 503
    assert "may be stored" in answer.said["message"]
    for _ in range(5):  # as its client does
        answer = otlp.post(both)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    # Whoever sends to other streams is served.
    assert otlp.post(of_services(good=["c"])).status == 200
    assert otlp.messages("good") == ["b", "c"]
    in_the_way.unlink()
    tries = map(str, itertools.count())  # an unanswered one may be stored too
    eventually(
        lambda: otlp.post(of_services(bad=[next(tries)])).status == 200, "the stream to work"
    )
    # The first request was queued, and says so. None of those after it was.
    assert otlp.messages("bad").count("a") == 1


def test_a_quota_of_one_stream_refuses_the_whole_request_and_no_other_one(
    start: Callable[..., Otlp],
) -> None:
    otlp = start("[stream.x.quota]\nrecords_per_s = 1\nburst = '1s'\n")
    assert otlp.post(of_services(x=[str(number) for number in range(100)])).status == 200
    answer = otlp.post(of_services(x=["later"], y=["a"]))
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 100
    assert otlp.post(of_services(y=["b"])).status == 200
    assert otlp.messages("y") == ["b"]
    assert "later" not in otlp.messages("x")


def test_a_quota_of_the_fallback_refuses_no_request_for_other_streams(
    start: Callable[..., Otlp],
) -> None:
    otlp = start("[stream.otel.quota]\nrecords_per_s = 1\nburst = '1s'\n")
    nowhere = of_services(**{"...": [str(number) for number in range(1000)]})
    assert otlp.post(nowhere).status == 200
    assert otlp.post(nowhere).status == 429
    assert otlp.post(of_services(y=["a"])).status == 200
    otlp.export("y b")
    assert otlp.messages("y") == ["a", "b"]
    assert otlp.post(of_services(y=["c"], **{"...": ["later"]})).status == 429
    assert otlp.messages("y") == ["a", "b"]


def test_a_long_request_is_answered_once_all_of_its_pieces_are_on_disk(
    start: Callable[..., Otlp],
) -> None:
    otlp = start()
    texts = {f"s{number}": [f"{n} {'x' * 100}" for n in range(1000)] for number in range(5)}
    assert otlp.post(of_services(**texts)).status == 200
    otlp.daemon.kill()
    assert {name: otlp.messages(name) for name in texts} == texts


def test_all_that_was_answered_survives_kills_in_whichever_stream_it_is(
    start: Callable[..., Otlp],
) -> None:
    otlp = start("[limits]\nmax_streams = 12\n")
    accepted: list[str] = []
    done = threading.Event()

    def send(name: int) -> None:
        number = 0
        while not done.is_set():
            texts = {f"s{(number + each) % 20}": [f"{name}-{number}-{each}"] for each in range(3)}
            with contextlib.suppress(OSError, ConnectionError):
                if otlp.post(of_services(**texts)).status == 200:
                    accepted.extend(text for said in texts.values() for text in said)
                    number += 1

    senders = [threading.Thread(target=send, args=(name,), daemon=True) for name in range(3)]
    for each in senders:
        each.start()
    try:
        for kills in range(1, 4):
            eventually(lambda: len(accepted) >= 90 * kills)  # noqa: B023 - called here
            otlp.daemon.kill()
            otlp.daemon.start()
    finally:
        done.set()
        for each in senders:
            each.join(PATIENCE_S)
    otlp.daemon.kill()
    found: Counter[str] = Counter()
    for directory in otlp.daemon.data.iterdir():
        if directory.is_dir() and not directory.name.startswith("."):
            found.update(otlp.messages(directory.name))
    assert set(accepted) <= found.keys()
