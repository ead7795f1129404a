"""The few messages that answer a request of OTLP, encoded as protobuf.

By hand: of the packages that have them as types, `logengine[otlp]` has only one.
Sources: logs_service.proto of OTLP; status.proto, error_details.proto and code.proto of google.rpc.
"""

from enum import Enum

_WIRE_VARINT, _WIRE_BYTES = 0, 2
_MORE_FOLLOWS = 0x80
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class Code(Enum):
    """Why a request is refused: a google.rpc.Code, which is also a status of gRPC."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNAVAILABLE = 14


def accepted(rejected: int, why: str) -> bytes:
    """Returns an ExportLogsServiceResponse: `rejected` records are not stored, and `why` not."""
    if not rejected:
        return b""
    partial_success = _number(1, rejected) + _bytes(2, why.encode())
    return _bytes(1, partial_success)


def status(code: Code, why: str, retry_after_s: int = 0) -> bytes:
    """Returns a google.rpc.Status, which says after how many seconds to try again, if not 0."""
    encoded = _number(1, code.value) + _bytes(2, why.encode())
    if retry_after_s:
        retry_info = _bytes(1, _number(1, retry_after_s))
        detail = _bytes(1, _RETRY_INFO.encode()) + _bytes(2, retry_info)
        encoded += _bytes(3, detail)
    return encoded


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _WIRE_VARINT) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _WIRE_BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= _MORE_FOLLOWS:
        encoded.append(value % _MORE_FOLLOWS | _MORE_FOLLOWS)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
