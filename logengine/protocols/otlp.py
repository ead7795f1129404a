"""OTLP's log records, as the SDKs and collectors of OpenTelemetry export them: bytes to lines.

Implements `docs/otlp.md`, the specification. Sources: the OpenTelemetry Protocol specification 1.10
and the protobuf definitions of `opentelemetry-proto`. `otlp_http` and `otlp_grpc` are the two ways
in which a request arrives.

    request > resource (its attributes) > scope (name, version) > records

A request in protobuf is taken apart here, and protobuf decodes one record at a time: an empty
record is two bytes on the wire and a hundred in memory. One in JSON is decoded whole by msgspec, or
record by record if something in it is wrong:
protobuf's own module for JSON takes five to ten times as long as all that is done here, and
reads ids as base64, which are in hex.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cache
from math import isfinite
from typing import Any, NamedTuple, Protocol

import msgspec

from logengine.errors import MalformedInput
from logengine.filtering.levels import LEVEL_NAMES, rank_of_name, rank_of_number
from logengine.format.timestamp import format_timestamp
from logengine.units import format_size_rounded

RECORDS_MAX = 65536
VALUES_MAX = 256 * 1024
# A value inside so many lists and maps. Protobuf itself stops at about as many.
DEPTH_MAX = 30

# After so many records, or values, other threads get a turn.
_RECORDS_PER_TURN = 16
_VALUES_PER_TURN = 256

# The packages of `logengine[otlp]`, as they are imported.
PACKAGES = ("aiohttp", "grpc", "opentelemetry.proto")

_UINT64_MAX = 2**64 - 1
_VARINT_BITS_MAX = 63
_MORE_FOLLOWS = 0x80
_WIRE_VARINT, _WIRE_64_BITS, _WIRE_BYTES, _WIRE_32_BITS = 0, 1, 2, 5
_RESOURCE_LOGS = 1
_RESOURCE, _SCOPE_LOGS = 1, 2
_SCOPE, _LOG_RECORDS = 1, 2

# JSON should have the numbers; protobuf's own module for JSON writes the names.
_SEVERITY_NUMBERS = {
    f"SEVERITY_NUMBER_{name}{repeat or ''}": 4 * place + max(1, repeat)
    for place, name in enumerate(("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"))
    for repeat in (0, 2, 3, 4)
} | {"SEVERITY_NUMBER_UNSPECIFIED": 0}

_HEX = re.compile(r"[0-9A-Fa-f]*")

_encode = msgspec.json.Encoder().encode


class Encoding(Enum):
    """How a request is encoded, and its answer."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


class Records(NamedTuple):
    """The records of a request.

    `lines` are as in `wire.Lines`, none of them blank. `too_large` is how many more records there
    were, longer than `max_record`, as JSON or as protobuf; `beyond` how many after the records
    together were too long; `undecodable` how many cannot be decoded, and `why` the first of them.
    """

    lines: bytes
    too_large: int
    beyond: int
    undecodable: int = 0
    why: str = ""


class _Value(Protocol):
    """An AnyValue; of these only one is set."""

    string_value: Any
    bool_value: Any
    int_value: Any
    double_value: Any
    array_value: Any
    kvlist_value: Any
    bytes_value: Any


class _KeyValue(Protocol):
    key: str
    value: Any


class _AnyValue(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | float | None = None
    double_value: int | float | str | None = None
    array_value: "_ArrayValue | None" = None
    kvlist_value: "_KeyValueList | None" = None
    bytes_value: str | None = None


class _JsonKeyValue(msgspec.Struct):
    key: str = ""
    value: _AnyValue | None = None


class _ArrayValue(msgspec.Struct):
    values: list[_AnyValue] | None = None


class _KeyValueList(msgspec.Struct):
    values: list[_JsonKeyValue] | None = None


class _Resource(msgspec.Struct):
    attributes: list[_JsonKeyValue] | None = None


class _Scope(msgspec.Struct):
    name: str | None = None
    version: str | None = None
    attributes: list[_JsonKeyValue] | None = None


class _LogRecord(msgspec.Struct, rename="camel"):
    time_unix_nano: int | str | float | None = None
    observed_time_unix_nano: int | str | float | None = None
    severity_number: int | str | float | None = None
    severity_text: str | None = None
    body: _AnyValue | None = None
    attributes: list[_JsonKeyValue] | None = None
    dropped_attributes_count: int | str | float | None = None
    flags: int | str | float | None = None
    trace_id: str | None = None
    span_id: str | None = None
    event_name: str | None = None


class _ScopeLogs(msgspec.Struct, rename="camel"):
    scope: _Scope | None = None
    log_records: list[_LogRecord] | None = None


class _ResourceLogs(msgspec.Struct, rename="camel"):
    resource: _Resource | None = None
    scope_logs: list[_ScopeLogs] | None = None


class _Request(msgspec.Struct, rename="camel"):
    resource_logs: list[_ResourceLogs] | None = None


# The same, if a part of it is wrong: each part is decoded alone.
_NOTHING = msgspec.Raw(b"null")


class _RawScopeLogs(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = _NOTHING
    log_records: list[msgspec.Raw] | None = None


class _RawResourceLogs(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = _NOTHING
    scope_logs: list[_RawScopeLogs] | None = None


class _RawRequest(msgspec.Struct, rename="camel"):
    resource_logs: list[_RawResourceLogs] | None = None


_json_decoder = msgspec.json.Decoder(_Request)
_raw_json_decoder = msgspec.json.Decoder(_RawRequest)
_record_decoder = msgspec.json.Decoder(_LogRecord)
_resource_decoder = msgspec.json.Decoder(_Resource | None)
_scope_decoder = msgspec.json.Decoder(_Scope | None)


def decode(
    body: bytes,
    encoding: Encoding,
    max_record: int,
    records_max: int,
    give_turn: Callable[[], object] = lambda: None,
) -> Records:
    """Returns the records of a request, an ExportLogsServiceRequest.

    `max_record` is in bytes, and so is `records_max`, for all records together: they repeat the
    resource and the scope, and so may be far longer than the request. `give_turn` is called now and
    then. A record that cannot be decoded, or has a value inside more than `DEPTH_MAX` others, is
    counted, and so is each of a resource or scope that cannot. Raises `MalformedInput` if that is
    all that there is, if it is not a request, or if it has more than `RECORDS_MAX` records or
    `VALUES_MAX` values. O(bytes of the request and of the records).
    """
    is_json = encoding is Encoding.JSON
    reader = _JsonReader(give_turn) if is_json else _ProtobufReader(give_turn, max_record)
    room_bytes = max(records_max, max_record)
    kept: list[bytes] = []
    too_large = beyond = undecodable = 0
    why = ""
    for number, record in enumerate(reader.records(body)):
        if not number % _RECORDS_PER_TURN:
            give_turn()
        if record is None:
            too_large += 1
            continue
        if isinstance(record, _Undecodable):
            undecodable += 1
            why = why or record.why
            continue
        own, common = record
        # Without the newline. A long resource is repeated only if there is room for it.
        size_bytes = len(own) + len(common) + len(b"{,}" if own and common else b"{}")
        if size_bytes > max_record:
            too_large += 1
        elif beyond or size_bytes > room_bytes:
            beyond += 1
        else:
            room_bytes -= size_bytes
            kept.append(b"{%s%s%s}\n" % (own, b"," if own and common else b"", common))
    if undecodable and not (kept or too_large or beyond):
        raise MalformedInput(why)
    return Records(b"".join(kept), too_large, beyond, undecodable, why)


class _Undecodable(NamedTuple):
    """What stands for a record, or for the fields of a resource and scope, that is wrong."""

    why: str


class _TooMany(MalformedInput):
    """The request has more of something than any may have."""


# A record's own fields, and those of its resource and scope: the insides of two objects. None if it
# is too large to be decoded.
_Parts = tuple[bytes, bytes] | _Undecodable | None
_Fields = bytes | _Undecodable


def _tried(fields_of: Callable[..., bytes], *of: Any) -> _Fields:
    """Returns what `fields_of` returns, or why it cannot. Raises `_TooMany`."""
    try:
        return fields_of(*of)
    except _TooMany:
        raise
    except MalformedInput as error:
        return _Undecodable(str(error))


def _joined(own: _Fields, common: _Fields) -> _Parts:
    if isinstance(common, _Undecodable):
        return common
    return own if isinstance(own, _Undecodable) else (own, common)


class _Reader:
    """What both encodings have in common, whose types have the same names."""

    def __init__(self, give_turn: Callable[[], object]) -> None:
        self._give_turn = give_turn
        self._records_left = RECORDS_MAX
        self._values_left = VALUES_MAX
        self._scalars: dict[str, Callable[[Any], Any]] = {
            "string_value": str,
            "bool_value": bool,
            "int_value": _integer,
            "double_value": _number,
            "bytes_value": self._bytes,
        }

    def records(self, body: bytes) -> Iterator[_Parts]:
        """Yields the records. Raises `MalformedInput`."""
        raise NotImplementedError

    def _kind(self, value: _Value) -> str | None:
        """Returns which attribute of an AnyValue is set."""
        raise NotImplementedError

    def _bytes(self, value: Any) -> str:
        """Returns the value of bytes, as base64."""
        raise NotImplementedError

    def _id(self, value: Any) -> str:
        """Returns the id of a trace or span, in hex; empty if there is none."""
        raise NotImplementedError

    def _count_record(self) -> None:
        self._records_left -= 1
        if self._records_left < 0:
            raise _TooMany(f"has more than {RECORDS_MAX} records")

    def _own(self, record: Any) -> bytes:
        return _encoded(self._fields(record))[1:-1]

    def _common(self, resource: Any, scope: Any) -> bytes:
        """Returns the fields that all records of a scope have, as the inside of an object."""
        fields: dict[str, Any] = {}
        if scope is not None:
            said = {"name": scope.name, "version": scope.version}
            described: dict[str, Any] = {name: text for name, text in said.items() if text}
            if scope.attributes:
                described["attributes"] = self._attributes(scope.attributes, 0)
            if described:
                fields["scope"] = described
        if resource is not None and resource.attributes:
            fields["resource"] = self._attributes(resource.attributes, 0)
        return _encoded(fields)[1:-1]

    def _fields(self, record: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        time_ns = _integer(record.time_unix_nano) or _integer(record.observed_time_unix_nano)
        if time_ns:
            if not 0 < time_ns <= _UINT64_MAX:
                raise MalformedInput("has a time that is not 64 bits")
            fields["time"] = format_timestamp(time_ns)
        fields |= _severity(_severity_number(record.severity_number), record.severity_text or "")
        self._add_body(fields, record.body)
        if record.event_name:
            fields["event_name"] = record.event_name
        if trace_id := self._id(record.trace_id):
            fields["trace_id"] = trace_id
        if span_id := self._id(record.span_id):
            fields["span_id"] = span_id
        if flags := _integer(record.flags):
            fields["flags"] = flags
        if record.attributes:
            fields["attributes"] = self._attributes(record.attributes, 0)
        if dropped := _integer(record.dropped_attributes_count):
            fields["dropped_attributes"] = dropped
        return fields

    def _add_body(self, fields: dict[str, Any], body: Any) -> None:
        if body is None or (kind := self._kind(body)) is None:
            return
        name = "message" if kind == "string_value" else "body"
        fields[name] = self._value(body, 0)

    def _attributes(self, attributes: Iterable[_KeyValue], depth: int) -> dict[str, Any]:
        return {each.key: self._value(each.value, depth) for each in attributes}

    def _value(self, value: Any, depth: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise _TooMany(f"has more than {VALUES_MAX} values")
        if not self._values_left % _VALUES_PER_TURN:
            self._give_turn()
        if depth > DEPTH_MAX:
            raise MalformedInput(f"has a value nested more than {DEPTH_MAX} levels deep")
        if value is None or (text := value.string_value):  # nearly all are text
            return None if value is None else text
        kind = self._kind(value)
        if kind == "array_value":
            return [self._value(each, depth + 1) for each in value.array_value.values or ()]
        if kind == "kvlist_value":
            return self._attributes(value.kvlist_value.values or (), depth + 1)
        # None: nothing is set, or a kind of a later version.
        convert = self._scalars.get(kind or "")
        return None if convert is None else convert(getattr(value, str(kind)))


class _JsonReader(_Reader):
    def records(self, body: bytes) -> Iterator[_Parts]:
        # Each takes far more memory than its bytes.
        if body.count(b"{") > VALUES_MAX:
            raise MalformedInput(f"has more than {VALUES_MAX} values")
        try:
            body.decode()
            try:
                request = _json_decoder.decode(body)
            except msgspec.ValidationError:
                yield from self._records_one_by_one(_raw_json_decoder.decode(body))
                return
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedInput(f"is not an ExportLogsServiceRequest in JSON: {error}") from None
        for of_resource in request.resource_logs or ():
            for of_scope in of_resource.scope_logs or ():
                common = _tried(self._common, of_resource.resource, of_scope.scope)
                for record in of_scope.log_records or ():
                    self._count_record()
                    yield _joined(_tried(self._own, record), common)

    def _records_one_by_one(self, request: _RawRequest) -> Iterator[_Parts]:
        for of_resource in request.resource_logs or ():
            for of_scope in of_resource.scope_logs or ():
                common = _tried(self._raw_common, of_resource.resource, of_scope.scope)
                for record in of_scope.log_records or ():
                    self._count_record()
                    yield _joined(_tried(self._raw_own, record), common)

    def _raw_common(self, resource: msgspec.Raw, scope: msgspec.Raw) -> bytes:
        return self._common(
            _decoded("Resource", _resource_decoder, resource),
            _decoded("InstrumentationScope", _scope_decoder, scope),
        )

    def _raw_own(self, record: msgspec.Raw) -> bytes:
        return self._own(_decoded("LogRecord", _record_decoder, record))

    def _kind(self, value: _Value) -> str | None:
        return next((name for name in _KINDS if getattr(value, name) is not None), None)

    def _bytes(self, value: Any) -> str:
        return str(value)

    def _id(self, value: Any) -> str:
        text = str(value or "")
        # Base64, as protobuf's own module for JSON writes, would be another value.
        return text.lower() if _HEX.fullmatch(text) else text


def _decoded(kind: str, decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedInput(f"has a {kind} that is wrong: {error}") from None


_KINDS = (
    *("string_value", "int_value", "bool_value", "double_value"),
    *("array_value", "kvlist_value", "bytes_value"),
)


class _ProtobufReader(_Reader):
    def __init__(self, give_turn: Callable[[], object], max_record: int) -> None:
        super().__init__(give_turn)
        self._max_record = max_record

    def records(self, body: bytes) -> Iterator[_Parts]:
        types = _types()
        for resource_logs in _parts(body, {_RESOURCE_LOGS})[_RESOURCE_LOGS]:
            of_resource = _parts(resource_logs, {_RESOURCE, _SCOPE_LOGS})
            # A message that occurs again is merged, and so it is when its bytes are joined.
            resource = b"".join(of_resource[_RESOURCE])
            for scope_logs in of_resource[_SCOPE_LOGS]:
                of_scope = _parts(scope_logs, {_SCOPE, _LOG_RECORDS})
                scope = b"".join(of_scope[_SCOPE])
                around_bytes = len(resource) + len(scope)
                common: _Fields = b""
                if around_bytes <= self._max_record:
                    common = _tried(self._encoded_common, types, resource, scope)
                for record in of_scope[_LOG_RECORDS]:
                    self._count_record()
                    if around_bytes + len(record) > self._max_record:
                        yield None
                    else:
                        yield _joined(_tried(self._encoded_own, types, record), common)

    def _encoded_common(self, types: "_Types", resource: bytes, scope: bytes) -> bytes:
        return self._common(_parsed(types.resource, resource), _parsed(types.scope, scope))

    def _encoded_own(self, types: "_Types", record: bytes) -> bytes:
        return self._own(_parsed(types.record, record))

    def _kind(self, value: Any) -> str | None:
        kind: str | None = value.WhichOneof("value")
        return kind

    def _bytes(self, value: Any) -> str:
        return b64encode(value).decode()

    def _id(self, value: Any) -> str:
        return bytes(value).hex()


class _Types(NamedTuple):
    resource: Any
    scope: Any
    record: Any


@cache
def _types() -> _Types:
    # Only here: a daemon without such a listener imports no protobuf, nor needs it.
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    return _Types(Resource, InstrumentationScope, LogRecord)


def _parsed(kind: Any, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(data)
    except DecodeError:
        raise MalformedInput(
            f"has a {kind.DESCRIPTOR.name} that is not protobuf, is nested too deep, or has text "
            "that is not UTF-8"
        ) from None


def _parts(data: bytes, numbers: set[int]) -> dict[int, list[bytes]]:
    """Returns the content of the fields with these numbers, of a message whose others are skipped.

    Raises `MalformedInput`. O(bytes).
    """
    found: dict[int, list[bytes]] = {number: [] for number in numbers}
    place = fields = 0
    while place < len(data):
        fields += 1
        if fields > VALUES_MAX:
            raise MalformedInput(f"has more than {VALUES_MAX} values")
        key, place = _varint(data, place)
        number, wire_type = key >> 3, key & 0b111
        start = place
        if wire_type == _WIRE_VARINT:
            _, place = _varint(data, place)
        elif wire_type == _WIRE_BYTES:
            size, start = _varint(data, place)
            place = start + size
        elif wire_type in (_WIRE_64_BITS, _WIRE_32_BITS):
            place += 8 if wire_type == _WIRE_64_BITS else 4
        else:
            raise MalformedInput(f"has a field of wire type {wire_type}")
        if not number or place > len(data):
            raise MalformedInput("is not an ExportLogsServiceRequest in protobuf, or is cut off")
        if wire_type == _WIRE_BYTES and number in numbers:
            found[number].append(data[start:place])
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift <= _VARINT_BITS_MAX:
        byte = data[place]
        place += 1
        value |= (byte & ~_MORE_FOLLOWS) << shift
        if byte < _MORE_FOLLOWS:
            return value, place
        shift += 7
    raise MalformedInput("is not an ExportLogsServiceRequest in protobuf, or is cut off")


def _severity(number: int, text: str) -> dict[str, Any]:
    """Returns the fields of a severity: `level` in our spelling, and what it does not say."""
    of_number = rank_of_number(number, "severity_number") if number else None
    of_text = rank_of_name(text) if text else None
    rank = of_text if of_number is None else of_number
    fields: dict[str, Any] = {} if rank is None else {"level": LEVEL_NAMES[rank]}
    if text and (of_text is None or of_text != rank):
        fields["severity_text"] = text
    # 10 is INFO2, and so on: of four numbers of a level, the first is the ordinary one.
    if number and (of_number is None or number % 4 != 1):
        fields["severity_number"] = number
    return fields


def _severity_number(value: str | float | None) -> int:
    return _SEVERITY_NUMBERS[value] if value in _SEVERITY_NUMBERS else _integer(value)


def _integer(value: str | float | None) -> int:
    """Returns an integer, which JSON may have as text. Raises `MalformedInput`."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    try:
        number = int(value)
    except (ValueError, OverflowError):
        raise MalformedInput(f"has {value!r:.40} where an integer is due") from None
    if isinstance(value, float) and number != value:
        raise MalformedInput(f"has {value!r:.40} where an integer is due")
    return number


def _number(value: float | str) -> float | str:
    """Returns a number; those that JSON does not have as text, as OTLP has them in JSON."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise MalformedInput(f"has {value!r:.40} where a number is due") from None
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124


def _encoded(fields: dict[str, Any]) -> bytes:
    try:
        return _encode(fields)
    except (OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise MalformedInput(f"has a value that JSON cannot have: {error}") from None


def reason(records: Records, max_record: int) -> str:
    """Returns why some of the records are not stored; empty if all are."""
    reasons = []
    if records.too_large:
        limit = format_size_rounded(max_record)
        reasons.append(f"{records.too_large} are longer than {limit} (max_record)")
    if records.beyond:
        reasons.append(
            f"{records.beyond} of them, with the resource and scope that each repeats, are too "
            "long together; send fewer at a time"
        )
    if records.undecodable:
        reasons.append(f"{records.undecodable} cannot be decoded: the request {records.why}")
    return "; ".join(reasons)
