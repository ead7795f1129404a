"""OTLP over HTTP: what a request must look like, and the body of each answer.

`intake.otlp_http` is the server. Source: the OpenTelemetry Protocol specification 1.10, OTLP/HTTP.
"""

from http import HTTPStatus

import msgspec

from logengine.protocols.lines import LinesReceiver
from logengine.protocols.otlp import PACKAGES, Encoding
from logengine.protocols.otlp_answers import Code, accepted, status
from logengine.protocols.wire import NoAnswers, WireProtocol

PATH = "/v1/logs"
METHOD = "POST"
COMPRESSIONS = ("identity", "gzip")

_STATUSES = {
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.DEADLINE_EXCEEDED: HTTPStatus.REQUEST_TIMEOUT,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def encoding_of(content_type: str) -> Encoding | None:
    """Returns the encoding that a Content-Type, without its parameters, names; None for another."""
    return next((each for each in Encoding if each.value == content_type.lower()), None)


def http_status(code: Code) -> HTTPStatus:
    """Returns the status of an answer that refuses a request for this reason."""
    return _STATUSES[code]


def answer(encoding: Encoding, rejected: int, why: str) -> bytes:
    """Returns the body that accepts a request, an ExportLogsServiceResponse.

    `rejected` of its records are not stored, and `why` says why not.
    """
    if encoding is Encoding.PROTOBUF:
        return accepted(rejected, why)
    if not rejected:
        return b"{}"
    said = {"rejectedLogRecords": str(rejected), "errorMessage": why}
    return msgspec.json.encode({"partialSuccess": said})


def refusal(encoding: Encoding, code: Code, why: str) -> bytes:
    """Returns the body that refuses a request, a google.rpc.Status."""
    if encoding is Encoding.PROTOBUF:
        return status(code, why)
    return msgspec.json.encode({"code": code.value, "message": why})


class HttpAnswers(NoAnswers):
    """What a connection that waits in vain for a free place is told."""

    def error(self, error: str, **details: object) -> bytes:
        """An answer before the request: come back later."""
        return (
            b"HTTP/1.1 503 Service Unavailable\r\n"
            b"Retry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )

    def goodbye(self, reason: str) -> bytes:
        """The same."""
        return self.error(reason)


PROTOCOL = WireProtocol(
    "otlp",
    ("stream",),
    LinesReceiver,
    HttpAnswers(),
    served_by="http",
    packages=PACKAGES,
    extra="otlp",
    over_network=True,
    tls_names=("http/1.1",),
)
