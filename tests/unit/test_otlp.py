"""OTLP without a socket: requests as their clients encode them, lines and answers out."""

import json
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from logengine.errors import MalformedInput
from logengine.protocols.otlp import (
    DEPTH_MAX,
    RECORDS_MAX,
    VALUES_MAX,
    Encoding,
    Records,
    decode,
    reason,
)
from logengine.protocols.otlp_answers import Code, status
from logengine.protocols.otlp_http import answer, encoding_of, refusal

TIME_NS = 1795466382123456789
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
MAX_RECORD, ALL_MAX = 64 * 1024, 1024 * 1024

# What opentelemetry-exporter-otlp-proto-http 1.45.2 for Python posted for
# `logging.getLogger("app").warning("hello %s", "ann")`.
CAPTURED = bytes.fromhex(
    "0aa8010a170a150a0c736572766963652e6e616d6512050a03776562128c010a050a03617070128201090083b9"
    "460754ec18100d1a045741524e2a0b0a0968656c6c6f20616e6e321f0a0e636f64652e66696c652e7061746812"
    "0d0a0b2f6170702f7765622e707932200a12636f64652e66756e6374696f6e2e6e616d65120a0a083c6d6f6475"
    "6c653e32160a10636f64652e6c696e652e6e756d6265721202180f591413bb460754ec18"
)


def value_of(value: Any) -> dict[str, Any]:  # noqa: PLR0911 - one case per kind
    """An AnyValue, in JSON."""
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case bytes():
            return {"bytesValue": b64encode(value).decode()}
        case list():
            return {"arrayValue": {"values": [value_of(each) for each in value]}}
        case dict():
            return {"kvlistValue": {"values": attributes(value)}}
    return {}


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value_of(value)} for key, value in values.items()]


def request(*records: dict[str, Any], resource: Any = None, scope: Any = None) -> dict[str, Any]:
    of_scope: dict[str, Any] = {"logRecords": list(records)}
    if scope is not None:
        of_scope["scope"] = scope
    of_resource: dict[str, Any] = {"scopeLogs": [of_scope]}
    if resource is not None:
        of_resource["resource"] = {"attributes": attributes(resource)}
    return {"resourceLogs": [of_resource]}


def in_protobuf(said: dict[str, Any]) -> bytes:
    """The same request in protobuf, by the module that OTLP's own types come with."""

    def with_ids(value: Any) -> Any:
        if isinstance(value, list):
            return [with_ids(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            key: b64encode(bytes.fromhex(each)).decode()
            if key in ("traceId", "spanId")
            else with_ids(each)
            for key, each in value.items()
        }

    parsed = json_format.ParseDict(with_ids(said), ExportLogsServiceRequest())
    encoded: bytes = parsed.SerializeToString()
    return encoded


def bodies(said: dict[str, Any]) -> Iterator[tuple[Encoding, bytes]]:
    yield Encoding.JSON, json.dumps(said).encode()
    yield Encoding.PROTOBUF, in_protobuf(said)


def stored(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of a request, which are the same in both encodings."""
    found = [decode(body, encoding, MAX_RECORD, ALL_MAX) for encoding, body in bodies(said)]
    assert found[0] == found[1]
    assert not found[0].too_large
    assert not found[0].beyond
    return [json.loads(line) for line in found[0].lines.splitlines()]


def test_a_record_keeps_what_it_says_of_itself_and_where_it_comes_from() -> None:
    record = {
        "timeUnixNano": str(TIME_NS),
        "observedTimeUnixNano": str(TIME_NS + 5000),
        "severityNumber": 17,
        "severityText": "ERROR",
        "body": value_of("it broke"),
        "attributes": attributes({"http.status": 500, "user": {"id": 7, "admin": False}}),
        "droppedAttributesCount": 2,
        "traceId": TRACE,
        "spanId": SPAN,
        "flags": 1,
        "eventName": "app.broken",
    }
    scope = {"name": "app.db", "version": "1.2", "attributes": attributes({"a": [1, "b"]})}
    said = request(record, resource={"service.name": "web", "pid": 12}, scope=scope)
    assert stored(said) == [
        {
            "time": "2026-11-23T20:39:42.123456Z",
            "level": "error",
            "message": "it broke",
            "event_name": "app.broken",
            "trace_id": TRACE,
            "span_id": SPAN,
            "flags": 1,
            "attributes": {"http.status": 500, "user": {"id": 7, "admin": False}},
            "dropped_attributes": 2,
            "scope": {"name": "app.db", "version": "1.2", "attributes": {"a": [1, "b"]}},
            "resource": {"service.name": "web", "pid": 12},
        }
    ]


def test_what_the_exporter_for_python_sends_is_read() -> None:
    found = decode(CAPTURED, Encoding.PROTOBUF, MAX_RECORD, ALL_MAX)
    assert found[1:] == (0, 0, 0, "")
    assert json.loads(found.lines) == {
        "time": "2026-11-28T21:52:21.642052Z",
        "level": "warning",
        "message": "hello ann",
        "attributes": {
            "code.file.path": "/app/web.py",
            "code.function.name": "<module>",
            "code.line.number": 15,
        },
        "scope": {"name": "app"},
        "resource": {"service.name": "web"},
    }


def test_a_record_without_anything_is_a_record() -> None:
    assert stored(request({}, {})) == [{}, {}]
    assert stored({}) == stored(request()) == []


def test_a_record_without_a_time_has_the_time_at_which_it_was_observed() -> None:
    assert stored(request({"observedTimeUnixNano": str(TIME_NS)})) == [
        {"time": "2026-11-23T20:39:42.123456Z"}
    ]


@pytest.mark.parametrize(
    ("number", "text", "fields"),
    [
        (1, "", {"level": "trace"}),
        (5, "DEBUG", {"level": "debug"}),
        (9, "Information", {"level": "info"}),
        (10, "", {"level": "info", "severity_number": 10}),
        (13, "WARN", {"level": "warning"}),
        (17, "bad", {"level": "error", "severity_text": "bad"}),
        (21, "FATAL", {"level": "critical"}),
        (24, "emerg", {"level": "critical", "severity_text": "emerg", "severity_number": 24}),
        (0, "warn", {"level": "warning"}),
        (0, "odd", {"severity_text": "odd"}),
        (99, "", {"severity_number": 99}),
    ],
)
def test_a_severity_becomes_a_level_and_nothing_of_it_is_lost(
    number: int, text: str, fields: dict[str, Any]
) -> None:
    assert stored(request({"severityNumber": number, "severityText": text})) == [fields]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("", {"message": ""}),
        ("ü\x00\n", {"message": "ü\x00\n"}),
        (7, {"body": 7}),
        (False, {"body": False}),
        ({"a": [1, None, {"b": 2.5}]}, {"body": {"a": [1, None, {"b": 2.5}]}}),
        ([], {"body": []}),
        (b"\xff\x00", {"body": "/wA="}),
        (-(2**63), {"body": -(2**63)}),
        (None, {}),
    ],
)
def test_a_text_is_the_message_and_another_body_stays_what_it_is(
    body: Any, fields: dict[str, Any]
) -> None:
    assert stored(request({"body": value_of(body)})) == [fields]


def test_numbers_that_json_does_not_have_are_text() -> None:
    for number in ("NaN", "Infinity", "-Infinity"):
        assert stored(request({"body": {"doubleValue": number}})) == [{"body": number}]


def test_json_is_read_as_its_writers_write_it() -> None:
    record = (
        b'{"timeUnixNano":1795466382123456789,"severityNumber":"SEVERITY_NUMBER_WARN2",'
        b'"traceId":"5B8EFFF798038103D269B633813FC60C","later":[{}],"body":{"intValue":7.0},'
        b'"attributes":null,"spanId":""}'
    )
    body = b'{"resourceLogs":[{"resource":null,"scopeLogs":[{"logRecords":[%s]}]}]}' % record
    assert json.loads(decode(body, Encoding.JSON, MAX_RECORD, ALL_MAX).lines) == {
        "time": "2026-11-23T20:39:42.123456Z",
        "level": "warning",
        "severity_number": 14,
        "body": 7,
        "trace_id": TRACE,
    }


def test_numbers_in_json_may_be_text_and_have_a_fraction_of_zero() -> None:
    record = b'{"severityNumber":9.0,"flags":"257","droppedAttributesCount":"7"}'
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}' % record
    assert json.loads(decode(body, Encoding.JSON, MAX_RECORD, ALL_MAX).lines) == {
        "level": "info",
        "flags": 257,
        "dropped_attributes": 7,
    }


def test_an_id_that_is_not_hex_stays_as_it_was_sent() -> None:
    in_base64 = "W47/95gDgQPSabYzgT/GDA=="
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"%s"}]}]}]}'
    body = body.replace(b"%s", in_base64.encode())
    lines = decode(body, Encoding.JSON, MAX_RECORD, ALL_MAX).lines
    assert json.loads(lines) == {"trace_id": in_base64}


def test_the_error_of_a_record_with_text_that_is_not_utf_8_says_so() -> None:
    body = in_protobuf(request({"body": value_of("abc")})).replace(b"abc", b"\xffbc")
    with pytest.raises(MalformedInput, match=r"LogRecord that .* text that is not UTF-8"):
        decode(body, Encoding.PROTOBUF, MAX_RECORD, ALL_MAX)


def nested(depth: int, *, in_maps: bool) -> dict[str, Any]:
    value: Any = "x"
    for _ in range(depth):
        value = {"k": value} if in_maps else [value]
    return request({"body": value_of(value)})


@pytest.mark.parametrize("in_maps", [True, False])
def test_a_value_may_be_nested_so_deep_and_no_deeper(*, in_maps: bool) -> None:
    assert len(stored(nested(DEPTH_MAX, in_maps=in_maps))) == 1
    for encoding, body in bodies(nested(DEPTH_MAX + 1, in_maps=in_maps)):
        with pytest.raises(MalformedInput):
            decode(body, encoding, MAX_RECORD, ALL_MAX)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (Encoding.JSON, b""),
        (Encoding.JSON, b"[]"),
        (Encoding.JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[7]}]}]}'),
        (Encoding.JSON, b'{"resourceLogs":' + b"[" * 100_000),
        (Encoding.JSON, b'{"x":' + b"[" * 100_000),
        (Encoding.JSON, b'{"x":"\xff"}'),
        (Encoding.JSON, b'{"x":"\\ud800"'),
        (Encoding.PROTOBUF, b"\x0a"),
        (Encoding.PROTOBUF, b"\x0a\x05\x12"),
        (Encoding.PROTOBUF, b"\x0b"),
        (Encoding.PROTOBUF, b"\x02\x00"),
        (Encoding.PROTOBUF, b"\xff" * 12),
        (Encoding.PROTOBUF, b'{"resourceLogs":[]}'),
    ],
)
def test_what_is_no_request_is_malformed(encoding: Encoding, body: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode(body, encoding, MAX_RECORD, ALL_MAX)


@pytest.mark.parametrize(
    "record",
    [
        {"timeUnixNano": "soon"},
        {"timeUnixNano": str(2**64)},
        {"timeUnixNano": 1.5},
        {"severityNumber": "LOUD"},
        {"body": {"intValue": "1e400"}},
        {"body": {"doubleValue": "much"}},
    ],
)
def test_a_number_in_json_that_is_none_is_malformed(record: dict[str, Any]) -> None:
    with pytest.raises(MalformedInput):
        decode(json.dumps(request(record)).encode(), Encoding.JSON, MAX_RECORD, ALL_MAX)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeUnixNano": "soon"},
        {"severityNumber": []},
        {"body": {"stringValue": 7}},
        {"body": {"intValue": "1e400"}},
        {"attributes": {}},
        7,
        None,
    ],
)
def test_a_record_of_json_that_cannot_be_decoded_is_rejected_alone(wrong: Any) -> None:
    said = request({"body": value_of("a")}, wrong, {"body": value_of("b")}, wrong)
    found = decode(json.dumps(said).encode(), Encoding.JSON, MAX_RECORD, ALL_MAX)
    assert found.lines == b'{"message":"a"}\n{"message":"b"}\n'
    assert (found.undecodable, found.too_large, found.beyond) == (2, 0, 0)
    assert "2 cannot be decoded: the request has " in reason(found, MAX_RECORD)


def test_a_record_of_protobuf_that_cannot_be_decoded_is_rejected_alone() -> None:
    body = in_protobuf(request(*({"body": value_of(text)} for text in ("one", "two", "three"))))
    found = decode(body.replace(b"two", b"t\xffo"), Encoding.PROTOBUF, MAX_RECORD, ALL_MAX)
    assert found.lines == b'{"message":"one"}\n{"message":"three"}\n'
    assert found.undecodable == 1
    assert "LogRecord" in reason(found, MAX_RECORD)


def test_a_record_that_is_nested_too_deep_is_rejected_alone() -> None:
    deep = nested(DEPTH_MAX + 1, in_maps=False)
    deep["resourceLogs"] += request({"body": value_of("a")})["resourceLogs"]
    for encoding, body in bodies(deep):
        found = decode(body, encoding, MAX_RECORD, ALL_MAX)
        assert (found.lines, found.undecodable) == (b'{"message":"a"}\n', 1)


@pytest.mark.parametrize("part", ["resource", "scope"])
def test_all_records_of_a_resource_or_scope_that_cannot_be_decoded_are_rejected(part: str) -> None:
    said = request({"body": value_of("a")})
    bad = request({"body": value_of("b")}, {"body": value_of("c")})["resourceLogs"][0]
    attributes = [{"key": "k", "value": {"stringValue": "odd"}}]
    (bad if part == "resource" else bad["scopeLogs"][0])[part] = {"attributes": attributes}
    said["resourceLogs"].insert(0, bad)
    in_json = json.dumps(said).encode().replace(b'"odd"', b"[]")
    for encoding, body in (
        (Encoding.JSON, in_json),
        (Encoding.PROTOBUF, in_protobuf(said).replace(b"odd", b"o\xffd")),
    ):
        found = decode(body, encoding, MAX_RECORD, ALL_MAX)
        assert (found.lines, found.undecodable) == (b'{"message":"a"}\n', 2)


def test_too_many_records_or_values_are_malformed() -> None:
    many = b"\x12\x00" * (RECORDS_MAX + 1)

    def field(content: bytes) -> bytes:
        scope_logs = ExportLogsServiceRequest().resource_logs.add().scope_logs.add()
        scope_logs.ParseFromString(content)
        whole = ExportLogsServiceRequest()
        whole.resource_logs.add().scope_logs.append(scope_logs)
        encoded: bytes = whole.SerializeToString()
        return encoded

    with pytest.raises(MalformedInput, match="records"):
        decode(field(many), Encoding.PROTOBUF, MAX_RECORD, ALL_MAX)
    empty = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * RECORDS_MAX + b"{}]}]}]}"
    with pytest.raises(MalformedInput, match="records"):
        decode(empty, Encoding.JSON, MAX_RECORD, ALL_MAX)
    with pytest.raises(MalformedInput, match="values"):
        decode(b"\x20\x00" * (VALUES_MAX + 1), Encoding.PROTOBUF, MAX_RECORD, ALL_MAX)
    with pytest.raises(MalformedInput, match="values"):
        decode(b"{" * (VALUES_MAX + 1), Encoding.JSON, MAX_RECORD, ALL_MAX)


def test_a_record_that_is_too_large_is_refused_alone() -> None:
    said = request({"body": value_of("a")}, {"body": value_of("b" * 200)}, {})
    for encoding, body in bodies(said):
        assert decode(body, encoding, 100, ALL_MAX) == Records(b'{"message":"a"}\n{}\n', 1, 0)
        assert decode(body, encoding, 214, ALL_MAX).too_large == 0
        assert decode(body, encoding, 213, ALL_MAX).too_large == 1


def test_a_record_or_resource_that_is_too_large_is_not_even_decoded() -> None:
    request_ = ExportLogsServiceRequest()
    of_resource = request_.resource_logs.add()
    record = of_resource.scope_logs.add().log_records.add()
    for _ in range(100):
        record.attributes.add()
    assert decode(request_.SerializeToString(), Encoding.PROTOBUF, 150, ALL_MAX).too_large == 1
    assert decode(request_.SerializeToString(), Encoding.PROTOBUF, 200, ALL_MAX).too_large == 0
    for _ in range(100):
        of_resource.resource.attributes.add()
    assert decode(request_.SerializeToString(), Encoding.PROTOBUF, 200, ALL_MAX).too_large == 1


@pytest.mark.parametrize("encoding", Encoding)
def test_other_threads_get_turns_however_the_values_are_shared_out(encoding: Encoding) -> None:
    for said in (
        request(*[{}] * 1000),
        request({"body": value_of(list(range(5000)))}),
        request({}, resource={str(number): number for number in range(5000)}),
    ):
        turns: list[None] = []
        body = dict(bodies(said))[encoding]
        decode(body, encoding, ALL_MAX, ALL_MAX, partial(turns.append, None))
        assert len(turns) > 15


def test_a_resource_that_many_records_repeat_takes_no_more_than_there_is_room_for() -> None:
    said = request(*[{}] * 50, resource={"k": "v" * 1000})
    for encoding, body in bodies(said):
        found = decode(body, encoding, 2000, 10_500)
        assert (found.lines.count(b"\n"), found.too_large, found.beyond) == (10, 0, 40)
        assert "40 of them" in reason(found, 2000)


def test_an_answer_says_how_many_records_are_not_stored_and_why() -> None:
    assert answer(Encoding.PROTOBUF, 0, "") == b""
    assert answer(Encoding.JSON, 0, "") == b"{}"
    response = ExportLogsServiceResponse.FromString(answer(Encoding.PROTOBUF, 300, "too large"))
    assert response.partial_success.rejected_log_records == 300
    assert response.partial_success.error_message == "too large"
    in_json = json_format.Parse(
        answer(Encoding.JSON, 300, "too large"), ExportLogsServiceResponse()
    )
    assert in_json == response


def test_a_refusal_is_a_status_in_the_encoding_of_the_request() -> None:
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    found = Status.FromString(refusal(Encoding.PROTOBUF, Code.INVALID_ARGUMENT, "x" * 200))
    assert (found.code, found.message) == (3, "x" * 200)
    assert json.loads(refusal(Encoding.JSON, Code.UNAVAILABLE, "y")) == {"code": 14, "message": "y"}
    again = Status.FromString(status(Code.RESOURCE_EXHAUSTED, "z", 7))
    retry = RetryInfo()
    assert again.details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 7


def test_a_content_type_names_an_encoding_or_none() -> None:
    assert encoding_of("application/x-protobuf") is Encoding.PROTOBUF
    assert encoding_of("Application/JSON") is Encoding.JSON
    assert encoding_of("text/plain") is None
